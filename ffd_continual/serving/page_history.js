// The lineage: its versions, the AUC of every forgery over them, each version's report.
"use strict";

const SVG = "http" + "://www.w3.org/2000/svg"; // the name of a namespace, nothing is asked there
const LEFT = 32, RIGHT = 40, TOP = 10, WIDE = 300, HIGH = 170;

function draw(tag, given, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(given)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// What stands below the axis: versions or experiences, evenly spaced, or dates between the first and the last.
function marks(axis, byTime) {
  if (!byTime) {
    const every = Math.max(1, Math.ceil(axis.length / 5));
    return axis.map((tick, number) => ({at: axis.length < 2 ? 0.5 : number / (axis.length - 1), label: tick.label, number: (axis.length - 1 - number) / every}))
      .filter((mark) => Number.isInteger(mark.number));
  }
  const first = axis[0].time, span = axis[axis.length - 1].time - first;
  const form = span < 2 * 86400 ? {hour: "2-digit", minute: "2-digit", hourCycle: "h23"} : span < 300 * 86400 ? {day: "numeric", month: "short"} : {month: "short", year: "numeric"};
  const words = new Intl.DateTimeFormat("en-GB", {...form, timeZone: "UTC"});
  return [0, 1, 2, 3].map((part) => ({at: part / 3, label: words.format(new Date(1000 * (first + span * part / 3))), number: 0}));
}

// One forgery's curve over the axis; points are [x, auc, low, high].
function chart(curve, axis, low, byTime) {
  const first = axis.length ? axis[0].time : 0, span = axis.length ? axis[axis.length - 1].time - first : 0;
  const share = (x) => byTime ? (axis.find((tick) => tick.x === x).time - first) / span :
    axis.length < 2 ? 0.5 : axis.findIndex((tick) => tick.x === x) / (axis.length - 1);
  const along = (part) => LEFT + part * (WIDE - LEFT - RIGHT), at = (x) => along(share(x));
  const up = (y) => TOP + (1 - (y - low) / (1 - low)) * (HIGH - TOP - 34);
  const colour = curve.stream === "unseen" ? "#c65102" : "#0b5394";
  const made = draw("svg", {viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": `AUC of ${curve.name}`});
  for (let tick = Math.ceil(low * 10); tick <= 10; tick += low < 0.45 ? 2 : 1) {
    made.append(draw("line", {class: "grid", x1: LEFT, x2: WIDE - RIGHT, y1: up(tick / 10), y2: up(tick / 10)}),
      draw("text", {x: LEFT - 6, y: up(tick / 10) + 3.5, "text-anchor": "end"}, (tick / 10).toFixed(1)));
  }
  made.append(draw("line", {class: "chance", x1: LEFT, x2: WIDE - RIGHT, y1: up(0.5), y2: up(0.5)}));
  marks(axis, byTime).forEach((mark) => {
    const short = mark.label.length > 11 ? `${mark.label.slice(0, 10)}…` : mark.label;
    made.append(draw("text", {x: along(mark.at), y: HIGH - 8 - (!byTime && axis.length > 3 && mark.number % 2 ? 0 : 12), "text-anchor": "middle"}, short));
  });
  const points = curve.points.filter((point) => point[1] !== null && axis.some((tick) => tick.x === point[0]));
  if (curve.learnt !== null && axis.some((tick) => tick.x === curve.learnt)) {
    made.append(draw("line", {class: "learnt", x1: at(curve.learnt), x2: at(curve.learnt), y1: TOP, y2: up(low)}));
  }
  // By time a version's figure holds until the next one goes into use.
  const steps = (some) => byTime ? some.flatMap((point, number) => number ? [[point[0], ...some[number - 1].slice(1)], point] : [point]) : some;
  const banded = points.filter((point) => point[2] !== null && point[3] !== null);
  if (banded.length > 1) {
    const whole = steps(banded), edge = [...whole.map((p) => [p[0], p[3]]), ...whole.slice().reverse().map((p) => [p[0], p[2]])];
    made.append(draw("polygon", {points: edge.map(([x, y]) => `${at(x)},${up(Math.max(y, low))}`).join(" "), fill: colour, "fill-opacity": 0.12}));
  }
  made.append(draw("polyline", {points: steps(points).map((p) => `${at(p[0])},${up(p[1])}`).join(" "), fill: "none", stroke: colour, "stroke-width": 2.2}));
  points.forEach((p) => made.append(draw("circle", {cx: at(p[0]), cy: up(p[1]), r: 3, fill: colour})));
  if (points.length) {
    const last = points[points.length - 1];
    made.append(draw("text", {class: "value", x: at(last[0]) + 6, y: up(last[1]) + 4, fill: colour}, last[1].toFixed(2)));
  }
  return made;
}

function lost(curve) {
  const points = curve.points.filter((point) => point[1] !== null);
  const last = points[points.length - 1], first = points.find((point) => point[0] === curve.learnt);
  if (curve.stream === "unseen") return "never learnt";
  if (!last) return "not measured";
  if (!first) return curve.learnt === null ? "not learnt yet" : `now ${last[1].toFixed(2)}`;
  const change = Number(first[1].toFixed(2)) - Number(last[1].toFixed(2));
  if (first === last) return `just learnt at ${last[1].toFixed(2)}`;
  const words = change >= 0.005 ? `lost ${change.toFixed(2)}` : change <= -0.005 ? `gained ${(-change).toFixed(2)}` : "nothing lost";
  return `learnt at ${first[1].toFixed(2)}, now ${last[1].toFixed(2)}: ${words}`;
}

// Told by version, or by the days that lie between: one can choose where there are several of both.
function curves(told) {
  const times = told.axis.map((tick) => tick.time);
  const timed = told.lineage && times.length > 1 && times.every((time, number) => !number || time > times[number - 1]);
  const place = make("div", {});
  const show = (byTime) => {
    const choice = timed ? [make("p", {class: "choice", role: "group", "aria-label": "Curves over"}, "Curves over ",
      ...[["versions", false], ["calendar time", true]].map(([word, own]) =>
        make("button", {type: "button", "aria-pressed": String(own === byTime), onclick: () => show(own)}, word)))] : [];
    place.replaceChildren(...choice, ...panels(told, byTime));
  };
  show(false);
  return [place];
}

function panels(told, byTime) {
  const values = told.curves.flatMap((curve) => curve.points.map((point) => point[1])).filter((value) => value !== null);
  const low = Math.min(0.45, Math.floor(Math.min(...values, 1) * 20 - 1) / 20);
  return ["test", "unseen"].flatMap((stream) => {
    const chosen = told.curves.filter((curve) => curve.stream === stream);
    if (!chosen.length) return [];
    const over = told.lineage ? "version" : "experience";
    return [make("h2", {}, stream === "test" ? "Forgetting curves" : "Forgeries that were never learnt"),
      make("p", {class: "words"}, `AUC on test faces after each ${over}${byTime ? ", by its date (UTC)" : ""}; the band is its 95 % interval, dotted is chance.`),
      make("div", {class: "panels"}, chosen.map((curve) =>
        make("figure", {}, make("figcaption", {}, told.real_sources.includes(curve.name) ? `${curve.name} (real faces)` : curve.name, make("span", {}, lost(curve))), chart(curve, told.axis, low, byTime))))];
  });
}

function number(value, digits = 3) {
  return value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−");
}

// What a version cost: training and measuring together.
function minutes(seconds) {
  const all = typeof seconds === "object" && seconds ? Object.values(seconds).reduce((sum, part) => sum + part, 0) : seconds;
  return all === null || all === undefined ? "–" : (all / 60).toFixed(1);
}

function versions(told, open) {
  const heads = ["Version", "What", "Verdict", "Average AUC", "Unseen AUC", "Worst drop", "Minutes", "Report"];
  const rows = told.versions.map((one) => {
    const what = `${one.kind === "real" ? "add real faces" : one.kind}: ${one.forgery || ""}`;
    const verdict = `${one.verdict || ""}${one.promoted ? ", in use" : ""}${one.weights ? "" : ", pruned"}${one.measured ? "" : ", never measured"}`;
    const report = one.report ? make("button", {type: "button", onclick: () => open(one.number)}, "open") : make("span", {}, "–");
    const cells = [`v${one.number}`, [make("span", {}, what, make("br"), make("small", {}, (one.date || "").replace("T", " ").replace(/:\d\dZ$/, " UTC")))], verdict, number(one.aa),
      number(one.unseen_auc), number(one.worst_drop), minutes(one.seconds), [report]];
    return make("tr", {class: one.promoted ? "use" : null}, cells.map((cell, at) =>
      make("td", {class: at > 2 && at < 7 ? "n" : null, "data-name": heads[at]}, Array.isArray(cell) ? cell : make("span", {}, cell))));
  });
  return make("div", {class: "wide"}, make("table", {class: "stack"},
    make("thead", {}, make("tr", {}, heads.map((head, at) => make("th", {class: at > 2 && at < 7 ? "n" : null}, head)))), make("tbody", {}, rows)));
}

function frame(address, title) {
  return [make("h2", {}, title), make("p", {}, make("a", {href: address, target: "_blank", rel: "noopener"}, "open it on a page of its own")),
    make("iframe", {src: address, title, sandbox: ""})];
}

// Fill the tab; asked again each time it is opened, so that it follows promotions.
async function showHistory(place) {
  let told;
  try {
    told = await ask("/api/lineage");
  } catch (error) {
    place.replaceChildren(make("p", {class: "notice"}, error.message));
    return;
  }
  const report = make("div", {class: "below"});
  const open = (version) => {
    report.replaceChildren(...frame(`/api/versions/${version}/report`, `Report of version ${version}`));
    report.scrollIntoView();
  };
  const words = told.lineage ? `Version ${told.promoted} of ${told.versions.length} is in use. A version that is promoted elsewhere is used here at once.` :
    "One finished run, without versions: make a lineage of it with ffd adopt to let it grow.";
  if (!told.lineage && told.report) report.replaceChildren(...frame("/api/report", "Report"));
  const whole = told.lineage && told.report ? make("p", {class: "words"}, make("a", {href: "/api/report", target: "_blank", rel: "noopener"},
    "Report of the whole lineage"), ": curves over calendar time, costs, and who did what.") : null;
  place.replaceChildren(make("h1", {}, told.name), make("p", {class: "words"}, words),
    ...(told.lineage ? [versions(told, open)] : []), ...(whole ? [whole] : []), ...curves(told), report);
}
