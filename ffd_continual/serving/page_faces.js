// What an answer of /api/predict looks like: the picture with its faces, a card a face, a video with its frames.
"use strict";

const CLASSES = {"forged": "forged", "real": "real", "no decision": "undecided"};
const WORDS = {"forged": "Forged", "real": "Real", "no decision": "No decision"};
const BARS = 6; // known forgeries shown

// Where the score lies between real and forged, and where the decisions change.
function scale(record, rule) {
  const low = rule.real_below_score, high = rule.forged_from_score;
  const bar = make("div", {class: "scale", role: "img", "aria-label": `score ${score(record.score)} of 1`},
    make("i", {style: {width: `${100 * low}%`}}),
    make("i", {class: "mid", style: {width: `${100 * (high - low)}%`}}),
    make("i", {class: "high", style: {width: `${100 * (1 - high)}%`}}),
    make("b", {style: {left: `${100 * record.score}%`}}));
  const marks = [make("span", {}, "0 real")];
  if (high - low > 0.07 && low > 0.14) marks.push(make("span", {style: {left: `${100 * low}%`}}, score(low)));
  if (high < 0.82 && high > 0.14) marks.push(make("span", {style: {left: `${100 * high}%`}}, score(high)));
  marks.push(make("span", {}, "forged 1"));
  return [bar, make("div", {class: "ends"}, marks)];
}

// What was learnt under a name may be real faces of a new camera.
function named(name) {
  return about && about.real_sources.includes(name) ? `${name} (real faces)` : name;
}

function attribution(record) {
  const weights = Object.entries(record.weights || {}).sort((a, b) => b[1] - a[1]);
  if (!weights.length) return [];
  const title = record.decision === "real" ? "Were it forged: what it would resemble of what is known" : "What it resembles of what is known";
  const rows = weights.slice(0, BARS).flatMap(([name, weight]) => [
    make("span", {}, named(name)),
    make("meter-bar", {}, make("i", {style: {width: `${100 * weight}%`}})),
    make("span", {}, percent(Math.round(100 * weight) / 100)),
  ]);
  if (weights.length > BARS) rows.push(make("small", {}, `and ${weights.length - BARS} more`), make("span"), make("span"));
  return [make("h3", {}, title), make("div", {class: "bars"}, rows)];
}

function novelty(record) {
  if (record.novelty === null || record.novelty === undefined) return [];
  const border = about && about.learner === "iin";
  const more = !border ? "larger is less like anything this detector has learnt" :
    record.novelty > 1 ? "above 1: less like any known forgery than those usually are" : "up to 1: within what known forgeries look like";
  return [make("h3", {}, "Novelty"), make("p", {class: "words"}, `${record.novelty.toFixed(2)} (${more})`)];
}

function neighbours(record, without) {
  if (!record.neighbours) return without ? [make("h3", {}, "Nearest stored faces"), make("p", {class: "words"}, without)] : [];
  const shown = record.neighbours.map((one) => make("figure", {},
    one.picture ? make("img", {src: one.picture, alt: `stored face, ${one.forgery}`}) : make("div", {class: "gone"}),
    make("figcaption", {}, make("b", {}, one.forgery), one.distance.toFixed(2))));
  return [make("h3", {}, "Nearest stored faces, with their distance (0: the same, 2: opposite)"), make("div", {class: "near"}, shown)];
}

function pictures(record) {
  if (!record.crop) return null;
  const map = record.trace_kind === "trace" ? "where it sees forged pixels" : "what its score rests on (Grad-CAM)";
  return make("div", {class: "seen"},
    make("figure", {}, make("img", {src: record.crop, alt: "the face crop"}), make("figcaption", {}, `what the detector sees, ${about ? about.size : ""} pixels a side`)),
    record.overlay ? make("figure", {}, make("img", {src: record.overlay, alt: "the face with the trace map"}), make("figcaption", {}, map)) : null);
}

// A face, or a whole video; `which` says which one. The first card of an answer says how it was decided.
function card(record, told, which, first) {
  const left = [pictures(record), ...(record.crop ? [] : novelty(record))];
  const right = [...attribution(record), ...(record.crop ? novelty(record) : [])];
  return make("article", {class: `card ${CLASSES[record.decision]}`},
    make("div", {class: "top"}, make("span", {class: "decision"}, WORDS[record.decision]),
      make("span", {class: "score"}, `score ${score(record.score)}`), make("span", {class: "which"}, which)),
    record.note ? make("p", {class: "notice"}, record.note) : null,
    scale(record, told.rule),
    first ? make("p", {class: "words"}, ruleInWords(told.rule), " ", make("b", {}, `${told.evidence.split(";")[0]}.`)) : null,
    make("div", {class: "parts"}, make("div", {}, left), make("div", {}, right)),
    record.crop ? neighbours(record, told.without_neighbours) : []);
}

// The picture with a numbered frame around each face.
function photo(told, faces, cards) {
  const boxes = faces.filter((face) => face.box).map((face, at) => {
    const [x, y, width, height] = face.box;
    const place = {left: x / told.width, top: y / told.height, width: width / told.width, height: height / told.height};
    const style = Object.fromEntries(Object.entries(place).map(([name, share]) => [name, `${100 * share}%`]));
    return make("button", {type: "button", class: `box ${CLASSES[face.decision]}${y < 0.08 * told.height ? " in" : ""}`, style,
      title: `face ${at + 1}`, onclick: () => {
        cards.forEach((one, number) => one.classList.toggle("now", number === at));
        cards[at].scrollIntoView({behavior: "smooth", block: "nearest"});
      }}, make("span", {}, faces.length > 1 ? `${at + 1}: ${score(face.score)}` : score(face.score)));
  });
  return make("div", {class: "photo"}, make("img", {src: told.preview, alt: "the picture"}), boxes);
}

function frames(told, faces) {
  const below = make("div");
  const buttons = told.strip.map((frame) => {
    const own = faces.filter((face) => face.frame === frame.frame);
    const time = frame.seconds === null ? `frame ${frame.frame}` : `${frame.seconds.toFixed(1)} s`;
    const word = own.length ? score(own[0].score) : "no face";
    return make("button", {type: "button", class: own.length ? CLASSES[own[0].decision] : "", "aria-pressed": "false",
      onclick: (event) => {
        buttons.forEach((one) => one.setAttribute("aria-pressed", String(one === event.currentTarget)));
        below.replaceChildren(...(own.length ? own.map((face, at) => card(face, told, own.length > 1 ? `${time}, face ${at + 1}` : `at ${time}`)) :
          [make("p", {class: "words"}, `At ${time} no face was found.`)]));
      }}, make("img", {src: frame.picture, alt: `frame at ${time}`}), time, make("br"), make("b", {}, word));
  });
  return [make("h2", {}, "Judged frames"), make("p", {class: "words"}, "Spread over the whole video. Choose one to see its face."),
    make("div", {class: "strip"}, buttons), below];
}

// The answer as elements.
function answerOf(told, name) {
  const faces = told.records.filter((record) => record.kind === "face");
  const title = make("h1", {}, name);
  if (told.kind === "video") {
    const whole = told.records[told.records.length - 1];
    const size = `${told.width} × ${told.height}, ${told.video_frames === null ? "" : `${told.video_frames} frames, `}${told.strip.length} judged`;
    const top = whole.decision ? card(whole, told, "the whole video: mean over its frames", true) :
      make("p", {class: "notice"}, `No face was found, so there is nothing to judge. ${whole.note || ""}`);
    return [title, make("p", {class: "words"}, size), top, ...frames(told, faces)];
  }
  const size = make("p", {class: "words"}, `${told.width} × ${told.height}`);
  if (!faces.length) {
    const words = "No face was found, so there is nothing to judge. If it is a tight face crop, tick the box above and try again.";
    return [title, size, make("div", {class: "photo"}, make("img", {src: told.preview, alt: "the picture"})), make("p", {class: "notice"}, words)];
  }
  const cards = faces.map((face, at) => card(face, told, faces.length > 1 ? `face ${at + 1} of ${faces.length}` : "", at === 0));
  return [title, size, photo(told, faces, cards), ...cards];
}
