"use strict";
// Keeps the table of stations up to date from the server's events. Text is set as text: nothing a device says is markup.
const body = document.querySelector("#stations tbody");
const status = document.querySelector("#status");

function cell(text, href) {
  const td = document.createElement("td");
  if (href) {
    const a = document.createElement("a");
    a.href = href;
    a.textContent = text;
    td.append(a);
  } else {
    td.textContent = text;
  }
  return td;
}

function row(s) {
  const tr = document.createElement("tr");
  const state = document.createElement("span");
  state.className = "state " + s.state;
  state.textContent = s.state;
  const td = document.createElement("td");
  td.append(state);
  const done = s.pct === null ? "" : " " + s.pct + " %";
  const tries = s.attempt > 1 ? " (" + s.attempt + ")" : "";
  tr.append(cell(s.station), cell(s.device || "-"), cell(s.board || "-"), cell(s.tags.join(", ")), td,
            cell(s.step + tries), cell(s.text + done), cell(s.run, s.run && "/runs/" + encodeURIComponent(s.run)));
  return tr;
}

const source = new EventSource("/events");
source.onmessage = (message) => {
  body.replaceChildren(...JSON.parse(message.data).stations.map(row));
  status.textContent = "live";
};
source.onerror = () => { status.textContent = "the server does not answer: this is what it last said"; };
