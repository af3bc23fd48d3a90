"use strict";

const totals = new Map();
const byId = (id) => document.getElementById(id);

function letterName(letter) {
  const code = letter.charCodeAt(0);
  return code > 0x20 && code < 0x7f ? letter : "\\x" + code.toString(16).padStart(2, "0");
}

function fill(body, rows) {
  body.replaceChildren(
    ...rows.map((cells) => {
      const row = document.createElement("tr");
      row.append(
        ...cells.map((text) => {
          const cell = document.createElement("td");
          cell.textContent = text;
          return cell;
        }),
      );
      return row;
    }),
  );
}

function showTotals(sequence, changed) {
  for (const [letter, total] of Object.entries(changed ?? {})) totals.set(letter, total);
  const letters = [...totals.keys()].sort();
  fill(byId("totals"), letters.map((each) => [letterName(each), totals.get(each)]));
  byId("sequence").textContent = sequence;
}

function showStatus(status) {
  byId("replay").textContent = status.restart.replay_events;
  fill(byId("sinks"), status.sinks.map((sink) => [sink.name, sink.cause ?? sink.state, sink.lag_events ?? "–"]));
}

function say(text, isStale) {
  byId("state").textContent = text;
  byId("state").classList.toggle("stale", isStale);
}

const events = new EventSource("/events");
events.addEventListener("snapshot", (event) => {
  const told = JSON.parse(event.data);
  totals.clear();
  showTotals(told.sequence, told.totals);
  showStatus(told.status);
  say("Live", false);
});
events.addEventListener("totals", (event) => {
  const told = JSON.parse(event.data);
  showTotals(told.sequence, told.totals);
});
events.addEventListener("second", (event) => {
  const told = JSON.parse(event.data);
  byId("rate").textContent = Math.round(told.second.events_per_second);
  showStatus(told.status);
});
events.addEventListener("error", () => say("Stale: the server does not answer; trying again", true));
