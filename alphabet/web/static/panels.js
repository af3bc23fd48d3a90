// The panels below the totals, and what needs attention: a standing, written out.

import { bytes, exact, lasted, short, took } from "./figures.js";
import { replayEstimate } from "./standing.js";

const byId = (id) => document.getElementById(id);

const LEVELS = { connected: "ok", "catching up": "warn", away: "warn", stopped: "bad" };

/** Set an element's text, if it is another. */
export function say(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

export function showStatus(status, hasTotals) {
  showSinks(status);
  showSources(status);
  showRejects(status.rejects);
  showLog(status);
  showServer(status);
  showReplay(status, hasTotals);
}

function showSinks({ sinks }) {
  fill(
    byId("sinks"),
    sinks.map((sink) => [
      { text: sink.name },
      { text: sink.state, level: LEVELS[sink.state] },
      { text: sink.lag_events === null ? "–" : exact(sink.lag_events), isNumber: true },
      { text: sink.sequence === null ? "–" : exact(sink.sequence), isNumber: true },
      { text: sink.address ?? "standard output" },
    ]),
  );
  byId("sinks").closest(".scroll").hidden = sinks.length === 0;
  byId("no-sinks").hidden = sinks.length > 0;
}

function showSources({ sources, inbox_bytes: inbox, inbox_bytes_max: most }) {
  fill(
    byId("sources"),
    sources.map((source) => [
      { text: [`--${source.kind}`, ...source.addresses].join(" ") },
      { text: exact(source.connections), isNumber: true },
      { text: bytes(source.received_bytes), isNumber: true },
    ]),
  );
  say("inbox", `${bytes(inbox)} of ${bytes(most)}`);
}

function showRejects(rejects) {
  const found = Object.entries(rejects).sort(([, a], [, b]) => b - a);
  fill(byId("rejects"), found.map(([reason, count]) => [{ text: reason }, { text: exact(count), isNumber: true }]));
  byId("rejects-table").hidden = found.length === 0;
  say("rejects-text", found.length ? "alphabet-replay rejects DATA_DIR lists the newest." : "None since the start: every vote was taken.");
}

function showLog({ log_file_bytes: size, blocks, restart }) {
  const { snapshot_sequence: sequence, snapshot_age_seconds: age } = restart;
  say("log-bytes", bytes(size));
  say("blocks", exact(blocks));
  say("snapshot", sequence === null ? "none yet" : `at event ${exact(sequence)}`);
  say("snapshot-age", age === null ? "–" : lasted(age));
}

function showServer({ uptime_seconds: uptime, resident_bytes: memory, version, restart }) {
  say("uptime", lasted(uptime));
  const { recovery_replayed: replayed, recovery_seconds: seconds } = restart;
  say("recovered", replayed === null ? "nothing: a new log" : `${exact(replayed)} events in ${took(seconds)}`);
  say("memory", bytes(memory));
  say("version", version);
}

function showReplay(status, hasTotals) {
  const { replay_events: events, snapshot_age_seconds: age } = status.restart;
  const snapshot = age === null ? "no snapshot yet" : `snapshot ${lasted(age)} old`;
  byId("replay").title = exact(events);
  say("replay", events < 1e6 ? exact(events) : short(events));
  say("replay-more", [replayEstimate(status, hasTotals), snapshot].filter(Boolean).join(" · "));
}

/** Show what needs attention, worst first. */
export function showNotices(notices) {
  const place = byId("notices");
  const key = JSON.stringify(notices);
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  place.hidden = notices.length === 0;
  place.replaceChildren(
    ...notices.map(({ level, title, text }) => {
      const notice = document.createElement("div");
      const [head, body] = [document.createElement("h2"), document.createElement("p")];
      notice.className = "notice";
      notice.dataset.level = level;
      head.textContent = title;
      body.textContent = text;
      notice.append(head, body);
      return notice;
    }),
  );
}

/** Make a table's body these rows; cells are kept, and written where they differ. */
function fill(body, rows) {
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, index) => {
    const row = body.rows[index] ?? body.insertRow();
    cells.forEach(({ text, level, isNumber }, column) => {
      const cell = row.cells[column] ?? row.appendChild(document.createElement(column ? "td" : "th"));
      if (!column) cell.scope = "row";
      if (cell.textContent !== text) cell.textContent = text;
      cell.className = isNumber ? "number" : "";
      if (level) cell.dataset.level = level;
    });
  });
}
