// The page: a file goes to /api/predict, the answer is drawn by page_faces.js. No library, no address but this
// server's own. Everything a server or a file says is set as text, never as markup.
"use strict";

const find = (id) => document.getElementById(id);

// An element with properties and children; strings become text.
function make(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined) continue;
    if (name === "class") made.className = value;
    else if (name === "style") Object.assign(made.style, value);
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

function megabytes(bytes) {
  return bytes >= 1048576 ? `${Number((bytes / 1048576).toPrecision(3))} MB` : `${Math.ceil(bytes / 1024)} KB`;
}

function percent(share) {
  return `${Number((100 * share).toPrecision(3))} %`;
}

function score(value) {
  if (value < 0.005) return "< 0.01";
  return value > 0.995 ? "> 0.99" : value.toFixed(2);
}

// The answer of the server as an object; throws Error with words for people.
async function ask(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is `ffd serve` still running?");
  }
  const told = await answer.json().catch(() => null);
  if (!answer.ok || told === null) {
    const text = told && told.error ? told.error : `the server answered with status ${answer.status}.`;
    throw new Error(text.charAt(0).toUpperCase() + text.slice(1));
  }
  return told;
}

function ruleInWords(rule) {
  const high = score(rule.forged_from_score), low = score(rule.real_below_score);
  if (rule.fpr === null) return `Called forged from ${high} on, real below. No validation faces tell how often that is wrong.`;
  const forged = `Called forged from ${high} on: at most ${percent(rule.fpr)} of ${rule.reals} real validation faces score that high.`;
  if (rule.real_below_z >= rule.forged_from_z) return `${forged} Called real below.`;
  return `${forged} Called real below ${low}: at most ${percent(rule.band)} of ${rule.forgeds} forged ones score that low. ` +
    "In between no decision is made.";
}

let about = null; // what /api/detector told last
let running = null; // AbortController of the upload under way

async function introduce() {
  about = await ask("/api/detector");
  find("name").textContent = about.lineage ? `${about.name}, ${about.version}` : about.version;
  find("evidence").textContent = about.evidence;
  find("limits").textContent = `JPEG, PNG, WebP, TIFF, BMP or GIF; MP4, WebM, MOV and the like. Up to ` +
    `${megabytes(about.max_upload)}. Files are judged on this server and not kept.`;
  find("tab-history").textContent = about.lineage ? "Lineage" : "Run";
  const known = about.known.length ? about.known.join(", ") : "none yet";
  find("empty").replaceChildren(
    make("p", {}, `This detector has learnt ${about.known.length} forgeries: ${known}. What no one has taught it, it may miss.`),
    make("p", {}, ruleInWords(about.rule)),
  );
  warn(about.problem);
}

function warn(problem) {
  find("problem").hidden = !problem;
  find("problem").textContent = problem || "";
}

function busy(words) {
  const status = find("status");
  status.hidden = !words;
  status.replaceChildren();
  if (!words) return;
  status.append(make("span", {class: "turning"}), make("span", {}, words),
    make("button", {type: "button", onclick: () => running && running.abort()}, "Cancel"));
}

async function judge(file) {
  if (running) running.abort();
  const own = running = new AbortController();
  find("empty").hidden = true;
  find("drop").className = "small";
  find("verdict").replaceChildren();
  busy(`Judging ${file.name || "the picture"} (${megabytes(file.size)}) …`);
  try {
    if (about && file.size > about.max_upload) {
      throw new Error(`This file has ${megabytes(file.size)}; the server takes up to ${megabytes(about.max_upload)}.`);
    }
    const told = await ask(`/api/predict?cropped=${find("cropped").checked}`, {
      method: "POST", body: file, signal: own.signal, headers: {"Content-Type": kindOf(file)},
    });
    if (running !== own) return;
    find("verdict").replaceChildren(...answerOf(told, file.name || "picture"));
    if (about && told.version !== about.version) await introduce();
    warn(told.problem);
  } catch (error) {
    if (running !== own) return;
    const words = error.name === "AbortError" ? "Cancelled." : error.message;
    find("verdict").replaceChildren(make("p", {class: "notice", role: "alert"}, words));
  } finally {
    if (running === own) {
      running = null;
      busy("");
    }
  }
}

// Browsers know few types of video by name: what they do not know, the server looks at.
function kindOf(file) {
  return /^(image|video)\//.test(file.type) ? file.type : "application/octet-stream";
}

function show(tab) {
  for (const name of ["judge", "history"]) {
    find(name).hidden = name !== tab;
    find(`tab-${name}`).setAttribute("aria-pressed", String(name === tab));
  }
  if (tab === "history") showHistory(find("history"));
}

function listen() {
  find("choose").addEventListener("click", () => find("file").click());
  find("file").addEventListener("change", (event) => {
    if (event.target.files.length) judge(event.target.files[0]);
    event.target.value = "";
  });
  window.addEventListener("dragover", (event) => {
    event.preventDefault();
    find("drop").classList.add("over");
  });
  window.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) find("drop").classList.remove("over");
  });
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    find("drop").classList.remove("over");
    const files = event.dataTransfer.files;
    if (!files.length) return;
    show("judge");
    judge(files[0]);
  });
  window.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) judge(event.clipboardData.files[0]);
  });
  find("tab-judge").addEventListener("click", () => show("judge"));
  find("tab-history").addEventListener("click", () => show("history"));
}

listen();
introduce().catch((error) => warn(error.message));
