"use strict";
document.getElementById("file").addEventListener("change", async (event) => {
  const file = event.target.files[0];
  const answer = await fetch("/api/predict", {method: "POST", body: file, headers: {"Content-Type": file.type || "application/octet-stream"}});
  const told = await answer.json();
  document.getElementById("verdict").textContent = told.error || told.records.map((r) => r.note || `${r.decision} ${r.score}`).join("; ");
});
