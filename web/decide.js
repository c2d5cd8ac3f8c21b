// From the network's outputs to an answer, as predict.py and evaluation/answers.py: tests/test_offline.py compares them.
"use strict";
const VERDICTS = { species: "ok", genus: "genus", family: "family", "": "not sure" };

// Return the prediction for the outputs (logits, then the score) of one or several photographs of a plant.
function interpret(rows, network) {
  if (!rows.every(row => row.every(Number.isFinite))) return { refused: "failed" };
  rows = [...new Map(rows.map(row => [[...row].join(), row])).values()]; // a copy tells nothing
  const outputs = [...rows[0]].map((_, i) => rows.reduce((sum, row) => sum + row[i], 0) / rows.length);
  const score = outputs.pop(), sharper = rows.length / (1 + (rows.length - 1) * network.same_plant);
  const [slope, center] = network.temperature_by_score; // higher for photographs unlike those of training
  const factor = sharper * Math.exp(Math.max(-1, Math.min(1, slope * (score - center)))) / network.temperature;
  const chances = softmax(outputs.map(logit => logit * factor));
  const order = chances.map((_, label) => label).sort((a, b) => chances[b] - chances[a] || a - b);
  const outside = network.threshold !== null && !(score >= network.threshold);
  const answer = !outside && ["species", "genus", "family"].map(rank => bestTaxon(chances, network.taxa[rank], rank))
    .find(({ rank, confidence }) => confidence >= (network.limits[rank] ?? Infinity));
  const rank = answer ? answer.rank : "";
  return {
    verdict: VERDICTS[rank], reason: outside ? "out-of-distribution" : rank === "species" ? "" : "risk", score,
    scientificName: answer ? answer.name : "", taxonRank: rank, confidence: answer ? rounded(answer.confidence) : "",
    set: outside ? [] : likelySet(chances, order, network.set_limit).map(label => network.taxa.species[label]),
    names: order.slice(0, network.top).map(label => ({ label, latin: network.taxa.species[label],
      probability: rounded(chances[label]) })),
  };
}
function softmax(values) {
  const largest = Math.max(...values), powers = values.map(value => Math.exp(value - largest));
  const sum = powers.reduce((total, power) => total + power);
  return powers.map(power => power / sum);
}
// Above the species, a taxon of one class is no answer: it would say no less than the species.
function bestTaxon(chances, names, rank) {
  const sums = new Map(), sizes = new Map();
  names.forEach((name, label) => {
    sums.set(name, (sums.get(name) || 0) + chances[label]);
    sizes.set(name, (sizes.get(name) || 0) + 1);
  });
  let best = { rank, name: "", confidence: -1 };
  for (const [name, confidence] of sums)
    if (confidence > best.confidence && (rank === "species" || name && sizes.get(name) > 1)) best = { rank, name, confidence };
  return best;
}
// The classes that likelier ones leave less than the limit; the likeliest is always one.
function likelySet(chances, order, limit) {
  let above = 0;
  return limit === null ? [] : order.filter(label => {
    const inside = above <= limit;
    above += chances[label];
    return inside;
  });
}
const rounded = chance => Math.min(.9999, Math.max(.0001, Math.round(chance * 1e4) / 1e4));
