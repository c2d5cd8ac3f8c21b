// The texts of the report's page: English, Russian. A text is a string or a function of what it needs, already written out.
const TEXT = {
  // ---- frame ----
  title: [run => `Test report: ${run}`, run => `Отчёт о проверке: ${run}`],
  sections: ["Sections", "Разделы"], language: ["Language", "Язык"],
  about: [(model, millions, date) => ["Test report · ", model, `, ${millions} million parameters · ${date}`],
    (model, millions, date) => ["Отчёт о проверке · ", model, `, ${millions} млн параметров · ${date}`]],
  files: ["All numbers are in report.json, all predictions in predictions.csv.",
    "Все числа есть в report.json, все предсказания\u00a0— в predictions.csv."],
  range: [(low, high) => `${low} to ${high}`, (low, high) => `${low}–${high}`],
  interval: [range => `95\u00a0% confidence interval ${range}`, range => `доверительный интервал (95\u00a0%) ${range}`],
  photographs: [count => plural(count, "photograph", "photographs"), count => plural(count, "снимок", "снимка", "снимков")],

  // ---- headline ----
  lead: [(photographs, classes, correct) => `The test set has ${plural(photographs, "photograph", "photographs")} of ${
    plural(classes, "class", "classes")}, none of them used in training. The most likely name is correct for ${number(correct)}. `,
  (photographs, classes, correct) => `В тестовой выборке ${plural(photographs, "снимок", "снимка", "снимков")}, классов: ${
    number(classes)}; в обучении эти снимки не участвовали. Верных ответов, если брать самое вероятное название: ${number(correct)}. `],
  unsure: [(count, rest) => `For ${plural(count, "photograph", "photographs")} the network is not sure${rest}`,
    (count, rest) => `${plural(count, "снимок", "снимка", "снимков")} сеть не берётся назвать («не уверена»)${rest}`],
  others: [(count, share) => `; of the other ${count}, ${share} are named correctly.`,
    (count, share) => `; из остальных (их ${count}) верно названы ${share}.`],
  sure: ["The network is sure of all of them.", "Сеть уверена в ответе для каждого снимка."],
  doubts: [sides => `Labels in doubt by find_label_errors.py (label_scores.csv) and not decided in review: ${sides}.`,
    sides => `Метки, в которых усомнился find_label_errors.py (label_scores.csv) и о которых никто не принял решения: ${sides}.`],
  noDoubts: ["Labels in doubt: unknown, as find_label_errors.py was not run before the split.",
    "Сколько меток сомнительны, неизвестно: перед делением выборки find_label_errors.py не запускали."],
  doubtsTest: [(doubtful, judged) => `${doubtful} of ${judged} in test`, (doubtful, judged) => `${doubtful} из ${judged} в тестовой выборке`],
  doubtsTrain: [(doubtful, judged) => `${doubtful} of ${judged} in train`, (doubtful, judged) => `${doubtful} из ${judged} в обучающей`],
  notJudged: [count => ` (${count} not judged)`, count => ` (не оценены: ${count})`],
  accuracy: ["Accuracy", "Доля верных ответов"],
  top5: ["Top-5 accuracy", "Верное среди первых пяти"],
  macroF1: ["Macro-F1", "Макро-F1"],
  meanF1: ["mean F1 of the classes", "среднее F1 по классам"],
  accuracySure: ["Accuracy when sure", "Верных, когда сеть уверена"],
  howSure: [(sure, unsure) => `${sure} sure, ${unsure} not sure`, (sure, unsure) => `уверена: ${sure}, не уверена: ${unsure}`],
  calibration: ["Calibration error", "Ошибка калибровки"],
  uncalibrated: ["not calibrated: the checkpoint has no temperature", "калибровки нет: в чекпойнте не записана температура"],
  before: [share => `${share} before temperature scaling`, share => `до подбора температуры было ${share}`],

  // ---- answers ----
  answers: ["Answers", "Ответы"],
  risk: [share => `Of the answers given, at most ${share} are to be wrong. Where the species is not that sure, the genus or ` +
    "family is answered if it is. ",
  share => `Среди данных ответов неверных должно быть не больше ${share}. Если вид определён не настолько надёжно, сеть ` +
    "называет род или семейство, когда надёжны они. "],
  limitsValidation: [count => `The limits come from ${count} validation photographs.`,
    count => `Пределы найдены на проверочных снимках (их ${count}).`],
  limitsOutOfFold: [count => `The limits come from ${count} out-of-fold photographs.`,
    count => `Пределы найдены перекрёстной проверкой на обучающих снимках (их ${count}).`],
  limitsOther: [count => `The limits come from ${count} photographs.`, count => `Пределы найдены на отдельных снимках (их ${count}).`],
  limitsNone: ["The checkpoint is of an earlier version, or its run has not ended: the risk is applied to each photograph.",
    "Чекпойнт записан прежней версией, или обучение не закончено: допустимая доля ошибок применяется к каждому снимку отдельно."],
  rank: ["Rank", "Ранг"], answered: ["Answered", "Отвечено"], wrongAmong: ["Wrong among them", "Из них неверно"],
  always: ["Accuracy, if always answered", "Доля верных, если отвечать всегда"],
  species: ["Species", "Вид"], genus: ["Genus alone", "Только род"], family: ["Family alone", "Только семейство"],
  sets: [(share, size) => `Sets of names that should contain the right name for 95\u00a0% of the photographs do so for ${share}; ${
    size} names on average.`,
  (share, size) => `Набор названий, который должен содержать верное в 95\u00a0% случаев, содержит его в ${share}; названий в нём в среднем ${size}.`],
  noSets: ["There are no sets of names: fewer than 19 photographs to set their limit.",
    "Наборов названий нет: меньше 19 снимков, чтобы найти их порог."],
  together: [shares => `Several photographs, one answer, on a part of the test photographs: accuracy ${shares}; `,
    shares => `Один ответ по нескольким снимкам, на части тестовых снимков; доля верных: ${shares}; `],
  byPhotographs: [(share, count, plants) => `${share} with ${count} (of ${plants})`,
    (share, count, plants) => `${share} по ${count === 1 ? "одному снимку" : { 2: "двум", 3: "трём" }[count] || count} (из ${plants})`],
  oneGroup: ["photographs of one group.", "снимки взяты из одной группы."],
  oneClass: ["different plants of a class, as there are too few groups: photographs of one plant gain less.",
    "групп слишком мало, и снимки взяты с разных растений одного класса: снимки одного растения дадут меньше."],
  unknown: [(share, count) => `Of photographs of plants that the network does not know, it would name about ${share}: ` +
    `measured by leaving classes out of the training data in turn (${count} photographs).`,
  (share, count) => `Из снимков растений, которых сеть не знает, она назвала бы примерно ${share}: измерено поочерёдным ` +
    `исключением классов из обучения (снимков: ${count}).`],
  unknownNot: ["How many photographs of unknown plants it would name was not measured.",
    "Сколько снимков незнакомых растений сеть назвала бы, не измеряли."],

  // ---- confused pairs, mistakes ----
  pairs: ["Most confused pairs", "Что путают чаще всего"],
  pairsLead: ["Photographs of one class that were mistaken for the other, with the probability of the wrong name. Outlined in " +
    "green: a correctly classified photograph of each.",
  "Снимки одного класса, принятые за другой, и вероятность неверного названия. В зелёной рамке\u00a0— верно определённый снимок каждого."],
  noPairs: ["No class was mistaken for another.", "Ни один класс не приняли за другой."],
  mistakenFor: [" mistaken for ", "\u00a0→ "],
  times: [count => count === 1 ? "once" : `${number(count)} times`, count => plural(count, "раз", "раза", "раз")],
  photograph: [name => `a photograph of ${name}`, name => `снимок: ${name}`],
  classified: [name => `${name}, classified correctly`, name => `${name}, определено верно`],
  mistakes: ["Mistakes", "Ошибки"],
  mistakesLead: ["Each photograph as the network sees it, and the same with a Grad-CAM heat map: red marks what contributed most " +
    "to the wrong name. Those marked “not sure” would not have been named. ",
  "Каждый снимок таким, каким его видит сеть, и он же с тепловой картой Grad-CAM: красным отмечено то, что больше всего говорило " +
    "за неверное название. Снимки с пометкой «не уверена» сеть не стала бы называть. "],
  plainLead: ["Each photograph as the network sees it. There are no heat maps: this network has no feature maps. " +
    "Those marked “not sure” would not have been named. ",
  "Каждый снимок таким, каким его видит сеть. Тепловых карт нет: у этой сети нет карт признаков. " +
    "Снимки с пометкой «не уверена» сеть не стала бы называть. "],
  mistakesShown: [(shown, all) => `Shown are the ${shown} most confident of ${all} mistakes.`,
    (shown, all) => `Показаны самые уверенные ошибки: ${shown} из ${all}.`],
  noMistakes: ["There are none.", "Ошибок нет."],
  find: ["Find a name", "Найти название"], order: ["Order", "Порядок"],
  confident: ["Most confident first", "Сначала самые уверенные"], hesitant: ["Least confident first", "Сначала наименее уверенные"],
  byName: ["By name", "По названию"], showAll: [count => `Show all ${count}`, count => `Показать все: ${count}`],
  heat: ["Grad-CAM heat map", "тепловая карта Grad-CAM"], correct: ["correct: ", "верно: "], notSure: ["not sure · ", "не уверена · "],

  // ---- classes, confusion matrix ----
  classes: ["Classes", "Классы"],
  classesLead: ["Recall: the share of a class's photographs that were classified correctly, with its 95\u00a0% confidence interval " +
    "(Wilson, one trial per group). Precision: the share of photographs given its name that show it. Click a heading to sort.",
  "Полнота\u00a0— какая доля снимков класса определена верно, с 95-процентным доверительным интервалом Уилсона (группа\u00a0— одно испытание). Точность\u00a0— какая " +
    "доля снимков, получивших это название, получила его по праву. Щёлкните по заголовку, чтобы упорядочить."],
  className: ["Class", "Класс"], train: ["Train", "Обучение"], test: ["Test", "Тест"], recall: ["Recall", "Полнота"],
  precision: ["Precision", "Точность"], f1: ["F1", "F1"], setHolds: ["Set: holds it", "Верное в наборе"], setSize: ["names", "Названий в нём"],
  mostOften: ["Most often mistaken for", "За что принимают чаще всего"],
  matrix: ["Confusion matrix", "Матрица ошибок"],
  matrixLead: ["Rows are the true classes, columns the predicted ones. Click a red square to see its photographs; with the keyboard, " +
    "arrow keys move among them.",
  "В строках\u00a0— что на снимке, в столбцах\u00a0— что ответила сеть. Щёлкните по красной клетке, чтобы увидеть её снимки; с клавиатуры " +
    "по клеткам ведут стрелки."],
  cellRight: [(name, count) => `${name}: ${count} correct`, (name, count) => `${name}: верно ${count}`],
  cellWrong: [(name, other, count) => `${name} mistaken for ${other}: ${count}`,
    (name, other, count) => `${name}\u00a0→ ${other}: ${count}`],

  // ---- confidence ----
  confidence: ["Confidence", "Уверенность"],
  confidenceLead: ["If probabilities are calibrated, the dots lie on the dashed line: of the predictions with 80\u00a0% confidence, " +
    "80\u00a0% are correct. The mean distance from the line, weighted by the number of photographs, is the expected calibration error (ECE). ",
  "Если вероятности откалиброваны, точки лежат на пунктире: из предсказаний с уверенностью 80\u00a0% верны 80\u00a0%. Среднее расстояние " +
    "до пунктира с учётом числа снимков и есть ошибка калибровки (ECE). "],
  temperatureNone: ["The checkpoint has no temperature, so its probabilities are not calibrated.",
    "В чекпойнте нет температуры, поэтому вероятности не откалиброваны."],
  temperature: [(value, varies) => `The network's outputs are divided by a temperature of ${value}, fitted on photographs not used in training.${
    varies ? " That is the median: for photographs less like those of training it is higher." : ""}`,
  (value, varies) => `Выходы сети делятся на температуру ${value}, подобранную на снимках, которых при обучении не было.${
    varies ? " Это медиана: у снимков, меньше похожих на обучающие, температура выше." : ""}`],
  asTrained: ["As trained", "После обучения"], beforeScaling: ["Before temperature scaling", "До подбора температуры"],
  afterScaling: ["After temperature scaling", "После подбора температуры"],
  plotNote: [(ece, loss) => `ECE ${ece}, cross-entropy ${loss} nats`, (ece, loss) => `ECE ${ece}, кросс-энтропия ${loss} ната`],
  confidenceAxis: ["confidence, %", "уверенность, %"], accuracyAxis: ["accuracy, %", "доля верных, %"],
  bin: [(photographs, confidence, accuracy) => `${photographs}: confidence ${confidence}, accuracy ${accuracy}`,
    (photographs, confidence, accuracy) => `${photographs}: уверенность ${confidence}, верных ${accuracy}`],
  coverage: ["Naming only the most confident", "Если называть только самые уверенные"],
  coverageNow: [(named, wrong) => `at present ${named} of the photographs, ${wrong} of them wrongly`,
    (named, wrong) => `сейчас названы ${named} снимков, из них неверно ${wrong}`],
  coverageNone: ["at present no photograph", "сейчас не назван ни один снимок"], now: ["at present", "сейчас"],
  coverageAxis: ["photographs named (coverage), %", "названо снимков, %"], riskAxis: ["wrong among them (risk), %", "из них неверно, %"],
  unsureWhy: [(share, photographs) => `The species of a photograph is “not sure” if naming such photographs would make more than ${
    share} of the names wrong (${photographs} in this test)`,
  (share, photographs) => `Вид снимка остаётся без названия («не уверена»), если среди названий таких снимков неверных было бы больше ${
    share} (в этой проверке: ${photographs})`],
  outsideNone: ["; the checkpoint has no out-of-distribution threshold.", "; порога для незнакомых растений в чекпойнте нет."],
  outside: [count => `, or if it seems to show none of these plants (${count} in this test, where every photograph shows one).`,
    count => ` или если на снимке как будто нет ни одного из этих растений (в этой проверке: ${count}, хотя на каждом снимке растение из списка).`],

  // ---- how many photographs are enough ----
  enough: ["Enough photographs?", "Хватает ли снимков?"], notDrawn: ["Not drawn: ", "Кривая не построена: "],
  curveOff: ["it is switched off (LEARNING_CURVE).", "она выключена (LEARNING_CURVE)."],
  curveUnnamed: ["the checkpoint does not name its initial weights.", "в чекпойнте не сказано, с каких весов началось обучение."],
  curveRandom: ["features of a network that started random would say nothing.",
    "сеть училась с нуля, и её исходные признаки ни о чём не говорят."],
  points: [(gain, low, high) => `${gain} points (95\u00a0%: ${low} to ${high})`, (gain, low, high) => `${gain}\u00a0п.\u00a0п. (95\u00a0%: от ${low} до ${high})`],
  double: [gain => `With twice as many photographs of every class, expect ${gain} of accuracy, if errors go on falling as they did before; `,
    gain => `Если снимков каждого класса станет вдвое больше, доля верных изменится на ${gain}, если ошибок будет убывать так же, как прежде; `],
  gainsClear: [names => ["of single classes, a gain is clear of chance for ", names, ". "],
    names => ["у отдельных классов прирост надёжно отличим от случайного: ", names, ". "]],
  gainsNone: ["for no single class can a gain be told from chance. ", "ни у одного класса прирост не отличить от случайного. "],
  probes: [draws => `Measured on the training photographs, by linear probes on features of the initial weights that saw neither a ` +
    `photograph nor its group (${plural(draws, "draw", "draws")}). The fine-tuned network is better than these probes: read the slope, not the height.`,
  draws => `Измерено на обучающих снимках линейными пробами на признаках исходных весов: ни снимка, ни его группы проба не ` +
    `видела (повторов: ${number(draws)}). Обученная сеть лучше этих проб: смотрите на наклон, а не на высоту.`],
  curve: ["Accuracy by photographs", "Доля верных и число снимков"],
  curveNote: ["bold: all classes with their interval; thin: the recall of each class",
    "жирная линия\u00a0— все классы вместе с интервалом, тонкие\u00a0— полнота каждого класса"],
  curveAxis: ["photographs of all classes", "снимков всех классов"],
  gains: ["Recall that another doubling would add", "Сколько полноты прибавит ещё одно удвоение"],
  gainsNote: ["in points, with its interval; where intervals overlap, the order is uncertain",
    "в процентных пунктах, с интервалом; где интервалы перекрываются, порядок ненадёжен"],

  // ---- how this was made ----
  made: ["How this was made", "Как это получено"],
  madeLead: ["Confidence intervals say how much the numbers would vary with other test photographs of the same kind. ",
    "Доверительные интервалы показывают, насколько изменились бы числа на других тестовых снимках того же рода. "],
  madeGroups: [count => `Photographs of one plant or page are not independent and form a group (${plural(count, "group", "groups")}). `,
    count => `Снимки одного растения или с одной страницы зависимы и составляют группу (групп: ${number(count)}). `],
  madeAlone: ["Every photograph counts as independent of the others. ", "Каждый снимок считается независимым от остальных. "],
  method: [method => `Method: ${method}; for macro-F1, bootstrap.`, method => `Метод: ${method}; для макро-F1\u00a0— бутстреп.`],
  bootstrap: ["bootstrap over groups", "бутстреп по группам"], wilson: ["Wilson", "интервал Уилсона"],
  yes: ["yes", "да"], no: ["no", "нет"],
  settings: ["Training settings", "Настройки обучения"],
  noSettings: ["The checkpoint does not contain its training settings.", "Настроек обучения в чекпойнте нет."],
};
// How this was made: the keys of report.json that are shown, in this order.
const MADE = {
  checkpoint: ["checkpoint", "чекпойнт"], checkpoint_sha256: ["checkpoint sha256", "SHA-256 чекпойнта"], model: ["model", "сеть"],
  epoch: ["epoch", "эпоха"], image_size: ["image size", "сторона снимка, пикселей"], flip_tta: ["flip tta", "с отражённым снимком (TTA)"],
  photographs: ["photographs", "снимков"], groups: ["groups", "групп"], interval_method: ["interval method", "метод интервалов"],
  loss_before: ["loss before", "потери до подбора температуры"], loss_after: ["loss after", "потери после подбора"],
  temperature: ["temperature", "температура"], threshold: ["threshold", "порог для незнакомых растений"],
  max_risk: ["max risk", "допустимая доля ошибок"], time: ["time", "время"], commit: ["commit", "коммит"],
  python: ["Python", "версия Python"], torch: ["PyTorch", "версия PyTorch"], threads: ["threads", "потоков"],
};

const said = texts => texts[language === "ru" ? 1 : 0];
const t = (key, ...given) => typeof said(TEXT[key]) === "function" ? said(TEXT[key])(...given) : said(TEXT[key]);

// ---- numbers ----
const fix = (value, digits) => value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
const number = count => count.toLocaleString(language);
const percent = (share, digits = 1) => `${fix(100 * share, digits)}\u00a0%`;
const interval = (ends, write = end => fix(100 * end, 1)) => ends ? t("interval", t("range", ...ends.map(write))) : "";
function plural(count, ...words) { // one, many; Russian: one, few, many
  const place = { one: 0, few: 1 }[new Intl.PluralRules(language).select(count)] ?? words.length - 1;
  return `${number(count)} ${words[place]}`;
}
