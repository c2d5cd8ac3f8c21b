// What the review page says: its views, the words of suspicions, the keys.
"use strict";
const VIEWS = {
  sheet: {title: "Sheets", accept: "Keep", rest: "Keep the rest", empty: "No photographs here",
    lead: "The most suspicious photographs come first. Reject or move those that do not belong here, then keep the rest."},
  duplicates: {title: "Duplicates", accept: "Confirm", rest: "Confirm all", empty: "No duplicates were found",
    lead: "Groups of near-duplicates, the least similar first; the first photograph of each is kept. Keep another one to bring it back, or mark it as not a duplicate."},
  conflicts: {title: "Conflicts", accept: "Accept the proposal", rest: "Next undecided",
    empty: "No picture has several names",
    lead: "Near-duplicates under several names; none is kept until you choose a name. find_label_errors.py gives each name a probability by what the picture shows, and proposes the one it is sure of."},
  borderline: {title: "Borderline", accept: "Distinct", rest: "Next undecided", empty: "There are no borderline pairs",
    lead: "Possible near-duplicates, the most similar pairs first; all are kept so far. Say of each pair whether it is two pictures (Enter) or one (S)."},
  rejected: {title: "Rejected", accept: "Confirm", rest: "Confirm all", empty: "Nothing was rejected",
    lead: "Each photograph is shown with the reason. “Keep” brings it back, unless the file cannot be opened."}};
const WHY = {  // what a word of the column `suspected` means
  blurred: () => "blurred even in its sharpest area", dark: () => "very dark", bright: () => "overexposed",
  long: photo => `${Math.round(10 * Math.max(photo.width / photo.height, photo.height / photo.width)) / 10} times as long as wide`,
  empty: () => "hardly any detail", "drawing or sheet": () => "as light and grey as paper: a drawing, a herbarium sheet, text?",
  label: photo => `a model doubts the label${photo.proposal_probability === "" ? "" : percent(photo.label_score)}`
    + (photo.proposal ? ` and proposes ${photo.proposal}${percent(photo.proposal_probability)}` : ""),
  outlier: () => "unlike the other photographs of its class",
  borderline: photo => `may be a near-duplicate of ${photo.near}: ${Math.round(100 * photo.near_alike)} % of the pixels agree`,
  "several names": photo => photo.reason + (photo.proposal && `; proposed: ${photo.proposal}${percent(photo.proposal_probability)}`)};
const percent = share => share === "" ? "" : ` (${share < .01 ? "< 1" : share > .99 ? "> 99" : Math.round(100 * share)} %)`, SURE = .5;  // as in statuses.py
const STATUS = {kept: "kept", duplicate: "duplicate", review: "undecided", rejected: "rejected"};
const VERDICTS = [["keep", "K", "Keep"], ["reject", "X", "Reject"], ["move", "M", "Move…"],
  ["apart", "N", "Not a duplicate"], ["same", "S", "One picture"], ["accept", "↵"], ["rest", "⇧↵"]];
const NOTHING = {propose: "There is no proposal.", apart: "There is no other photograph beside it.",
  same: "There is no other photograph beside it.",
  accept: "It has that name already."};
const HELP = [["← → ↑ ↓", "go to another photograph; with ⇧ select all on the way"], ["K", "keep, or bring back a rejected photograph"],
  ["X", "reject"], ["M", "move to another class: type part of its name, then ↵"],
  ["P", "move to the proposed class"], ["1 … 9", "move to a recently used class"],
  ["N", "not a duplicate of the photographs beside it"], ["S", "the same picture as the photographs beside it"],
  ["↵", "keep on contact sheets, accept the proposal elsewhere"],
  ["⇧ ↵", "accept everything undecided on this page and turn it; never a label conflict or a borderline pair"],
  ["Tab", "go to the buttons: there ↵ and Space press the button that has the focus, and no other key decides"], ["Z", "undo the last key press; again for the one before"],
  ["W", "whole photographs on the sheets, or square cut-outs"], ["Space", "zoom in; arrows and decisions work there, too"], ["[ ]", "turn the page"], ["U", "first page not reviewed"],
  ["+ −", "larger, smaller"], ["A, Esc", "select the whole page; select nothing"],
  ["Click", "with ⇧ selects a range, with Ctrl one more; double click zooms in"]];
