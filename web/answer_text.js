// The texts of the page, in two languages: a text is a string or a function of what it needs.
"use strict";
const TEXT = { en: {
  brand: "Herbarium", title: "What plant is this?", theme: "Light or dark",
  lead: "Choose a photograph, or several of one plant: the network names it, or says that it is not sure.",
  together: count => `One answer for ${count} photographs of one plant.`, unread: names => `Not read: ${names}.`,
  further: count => `Of a file of several pages only the first was looked at; further pages: ${count}.`,
  unshown: "This browser cannot show the photograph; the network has read it.",
  choose: "Choose a photograph", take: "Take a photograph", drop: "or drop one anywhere on this page, or paste one",
  another: "Another photo", looking: "Identifying …", heat: "Heat map", photo: "your photograph",
  waiting: "Photographs are answered one after another: yours is waiting for its turn, or is still being sent.",
  legend: "Red marks what speaks most for the selected name. The network sees only the bright square.",
  noHeat: "The heat map could not be made.", again: "Try again",
  unsure: "Not sure", risky: (share, risk) => `The first name is correct with an estimated probability of ${share}, which is
    not enough: of the names given, at most ${risk} may be wrong. A closer, sharper photograph with a flower or leaf in
    the centre often helps.`,
  coarse: (name, share) => `${name}, species not sure`, coarser: { genus: share => `It is this genus with an estimated
    probability of ${share}; the species below are candidates.`, family: share => `It is this family with an estimated
    probability of ${share}; the species below are candidates.` },
  set: (names, count) => `In 95 of 100 photographs, one of these ${count} is correct: ${names}.`,
  none: "None of these plants", nearest: count => `The photograph seems to show none of the ${count} plants that
    this network knows. Nearest to it:`, caution: "Caution:", never: "Never eat or touch a plant or fungus because a program named it.",
  examples: "Photographs the network was trained on", credits: "Photographs: ", source: "source", close: "Close",
  unnamed: "unknown author", known: count => `The ${count} plants it knows`, tap: "with photographs it was trained on",
  wrong: "It is something else", right: "What is it?", noPlant: "None of these plants", send: "Send", corrected:
    "Thank you. A person will look at it before the network learns from it.", consent: `I took this photograph. It may be
    kept on the computer behind this page, with the time and place stored in it, and used to train the network.`,
  footer: "Your photograph is processed in memory and not stored; this tab holds a small copy until it is closed.", unless: " Only one that you correct, if you agree, is kept.", calibrated:
    " Probabilities are calibrated: of the names given with 90\u00a0%, about 90 in 100 are correct," +
    " for photographs like those the network was trained on.",
  calibratedOnFew: count => ` Probabilities were calibrated on ${count} photographs only, so they may be off by ten percentage points and more.`,
  undetected: " This network does not detect plants it was not trained on: it names them as one it knows.",
  unknownPlants: share => ` Of photographs of plants it does not know, it would name about ${share}, all wrongly.`,
  sorry: "That did not work", refused: {
    empty: () => "The file is empty.", unknown: () => `This file is not a picture that the page can read. It reads JPEG, PNG,
      WebP, AVIF, GIF, TIFF, BMP and, with the package pillow-heif, HEIC.`, heic: () => `To read HEIC photographs of an iPhone, this page needs a package: run
      pip install pillow-heif and start app.py again, or save the photograph as JPEG.`,
    pixels: facts => `The picture has too many pixels: the limit is ${facts.megapixels} million. Make it smaller or crop it
      to the plant.`, animation: () => "This is an animation. Choose a single photograph.",
    broken: () => "The picture is damaged. Choose another copy of it.", bytes: facts =>
      `The file is too large: the limit is ${facts.upload_mb} megabytes.`,
    text: () => "That was not a file. Drop or paste a picture.",
    unreadable: () => "The file could not be read. It is a folder, or has been moved or deleted; choose it again.",
    slow: () => "The photograph arrived so slowly that the program gave up. Try again with a better connection or a smaller photograph.",
    gone: () => "The program behind this page does not respond. Is app.py still running?",
    token: () => "Open this page again at the address that app.py printed.",
    failed: () => "The program behind this page failed. Its terminal shows why." } },
ru: {
  brand: "Гербарий", title: "Что это за растение?", theme: "Светлая или тёмная тема",
  lead: "Выберите фотографию или несколько снимков одного растения: сеть назовёт его или скажет, что не уверена.",
  together: count => `Один ответ по фотографиям одного растения (их ${count}).`, unread: names => `Не прочитано: ${names}.`,
  further: count => `Из файла с несколькими страницами взята только первая; остальных страниц: ${count}.`,
  unshown: "Браузер не может показать этот снимок, но сеть его прочитала.",
  choose: "Выбрать фотографию", take: "Сфотографировать",
  drop: "или перетащите её на эту страницу, или вставьте из буфера обмена",
  another: "Другое фото", looking: "Определяю …", heat: "Тепловая карта", photo: "ваша фотография",
  waiting: "Снимки обрабатываются по очереди: ваш ждёт её или ещё отправляется.",
  legend: "Красным отмечено то, что больше всего говорит в пользу выбранного названия. Сеть видит только светлый квадрат.",
  noHeat: "Построить тепловую карту не удалось.", again: "Попробовать ещё раз",
  unsure: "Сеть не уверена", risky: (share, risk) => `Первое название верно с вероятностью ${share} (оценка сети). Этого мало:
    среди названных растений ошибочных должно быть не больше ${risk}. Часто помогает снимок поближе и порезче, с
    цветком или листом в центре.`,
  coarse: name => `${name}, вид под вопросом`, coarser: { genus: share => `Растение относится к этому роду с вероятностью ${share}
    (оценка сети); ниже возможные виды.`, family: share => `Растение относится к этому семейству с вероятностью ${share}
    (оценка сети); ниже возможные виды.` },
  set: (names, count) => `В 95 случаях из 100 верно одно из этих названий (их ${count}): ${names}.`,
  none: "Ни одно из этих растений", nearest: count => `По-видимому, на фотографии нет ни одного из растений, которые
    знает сеть (их ${count}). Больше всего похоже на:`, caution: "Осторожно:",
  never: "Никогда не ешьте и не трогайте растение или гриб только потому, что его назвала программа.",
  examples: "Фотографии, на которых училась сеть", credits: "Фотографии: ", source: "источник", close: "Закрыть",
  unnamed: "автор не указан", known: count => `Растения, которые знает сеть:\u00a0${count}`,
  tap: "с фотографиями, на которых она училась",
  wrong: "Это что-то другое", right: "Что это?", noPlant: "Ни одно из этих растений", send: "Отправить", corrected:
    "Спасибо. Прежде чем сеть станет учиться на этом снимке, его посмотрит человек.", consent: `Снимок сделан мной. Его можно
    хранить на компьютере, где работает эта страница, вместе со временем и местом съёмки и учить на нём сеть.`,
  footer: "Фотография обрабатывается в памяти и не сохраняется; уменьшенная копия остаётся в этой вкладке, пока её не закроют.",
  unless: " Останется только снимок, который вы исправите, если вы на это согласитесь.", calibrated:
    " Вероятности откалиброваны: из названий с вероятностью 90\u00a0% верны примерно 90 из 100," +
    " если снимки похожи на те, на которых училась сеть.",
  calibratedOnFew: count => ` Вероятности откалиброваны по малому числу снимков (${count}) и могут ошибаться на десять процентных пунктов и больше.`,
  undetected: " Эта сеть не распознаёт незнакомые растения: она даст им название одного из знакомых.",
  unknownPlants: share => ` Из снимков растений, которых сеть не знает, она назовёт, и всегда ошибочно, примерно ${share}.`,
  sorry: "Не получилось", refused: {
    empty: () => "Файл пуст.", unknown: () => `Страница не может прочитать этот файл как изображение. Подходят JPEG, PNG, WebP,
      AVIF, GIF, TIFF, BMP, а с пакетом pillow-heif и HEIC.`, heic: () => `Чтобы читать снимки HEIC с айфона, странице нужен пакет: выполните
      pip install pillow-heif и запустите app.py снова или сохраните снимок как JPEG.`,
    pixels: facts => `В изображении слишком много пикселей: допускается не больше ${facts.megapixels} миллионов. Уменьшите его
      или обрежьте до растения.`, animation: () => "Это анимация. Выберите обычную фотографию.",
    broken: () => "Файл изображения повреждён. Выберите другую копию.", bytes: facts =>
      `Файл слишком большой: допускается не больше ${facts.upload_mb} мегабайт.`,
    text: () => "Это не файл. Перетащите или вставьте изображение.",
    unreadable: () => "Файл не удалось прочитать: это папка, или его переместили либо удалили. Выберите его ещё раз.",
    slow: () => "Снимок передавался слишком медленно, и программа перестала его ждать. Попробуйте при лучшей связи или уменьшите снимок.",
    gone: () => "Программа, обслуживающая страницу, не отвечает. Запущен ли app.py?",
    token: () => "Откройте страницу заново по адресу, который напечатал app.py.",
    failed: () => "В программе, обслуживающей страницу, произошла ошибка; подробности в её терминале." } } };
