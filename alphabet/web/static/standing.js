// What a standing means: one word for it, and what somebody has to do. Pure.

import { exact, lasted, took } from "./figures.js";

const BACK_SECONDS = 60; // How long it is told that the server has started again.
const NOTICE_SECONDS = 5; // A restart that takes less is no news.
const SILENCE = {
  level: "stale",
  word: "Stale",
  title: "The server does not answer",
  text: "What is shown is old. If the server has ended, its standard error says why; start it again on the same data directory. This page goes on by itself.",
};

/** Judge a standing. Gives {level, word, detail, notices}; a level is ok, warn, bad, stale or wait. */
export function judge(status, isLive, silentSeconds, isBack) {
  if (!status) {
    const detail = silentSeconds < 2 ? "" : `no answer for ${lasted(silentSeconds)}; trying again`;
    return { level: "wait", word: "Connecting", detail, notices: [] };
  }
  const notices = noticesOf(status, isBack);
  if (!isLive) {
    const detail = `no news for ${lasted(silentSeconds)}; trying again`;
    return { level: "stale", word: "Stale", detail, notices: silentSeconds < NOTICE_SECONDS ? notices : [SILENCE] };
  }
  const worst = notices.find((each) => each.level === "bad") ?? notices.find((each) => each.level === "warn");
  if (worst) return { level: worst.level, word: worst.word, detail: "", notices };
  return { level: "ok", word: "Live", detail: "", notices };
}

function noticesOf(status, isBack) {
  const notices = [];
  if (status.disk_full !== null) {
    notices.push({
      level: "bad",
      word: "Disk full",
      title: "The disk is full",
      text: `${sentence(status.disk_full)} Senders wait, and nothing that was acknowledged is lost. Free some of that disk, or make it larger; the server tries again every second.`,
    });
  }
  for (const sink of status.sinks) {
    if (sink.state === "stopped") notices.push(stopped(sink));
    if (sink.state === "away") notices.push(away(sink));
  }
  if (status.is_stopping) {
    notices.push({ level: "warn", word: "Stopping", title: "The server is stopping", text: "It takes no more votes, and sends what the sinks have not got." });
  }
  if (isBack && status.uptime_seconds < BACK_SECONDS) notices.push(back(status));
  return notices;
}

function stopped(sink) {
  const todo =
    sink.damaged_sequence === null
      ? "Mend what it names, then start the server again: the sink goes on where it was."
      : `The log is damaged at event ${exact(sink.damaged_sequence)}. Run alphabet-replay verify on the data directory; alphabet-replay salvage writes all that is left to a new log.`;
  return {
    level: "bad",
    word: "Sink stopped",
    title: `Sink ${sink.name} has stopped`,
    text: `${sentence(sink.cause ?? "It does not say why")} Counting goes on. ${todo}`,
  };
}

function away(sink) {
  const from = sink.sequence === null ? "" : `, from event ${exact(sink.sequence + 1)} on`;
  return {
    level: "warn",
    word: "Sink away",
    title: `Sink ${sink.name} is away`,
    text: `Nobody takes outputs at ${sink.address}. Counting goes on, and it will be sent what it misses${from}. Start the receiver there.`,
  };
}

function back(status) {
  const { recovery_seconds: seconds, recovery_replayed: replayed } = status.restart;
  const text = replayed === null ? "It began with a new log." : `It replayed ${exact(replayed)} events and was ready in ${took(seconds)}.`;
  return { level: "info", word: "Live", title: "The server has started again", text };
}

/** How long a replay would take, in words; empty if nothing says how fast it is. */
export function replayEstimate(status, hasTotals) {
  const { replay_events: events, recovery_seconds: seconds, recovery_replayed: replayed } = status.restart;
  if (events === 0) return "at once";
  const isMeasured = replayed !== null && replayed >= 1e6 && seconds > 0;
  if (!isMeasured && !hasTotals) return "";
  // Without a measure: a fifth of what our benchmarks have seen.
  const speed = isMeasured ? replayed / seconds : 5e7;
  return events / speed < 1 ? "under 1 s" : `about ${lasted(events / speed)}`;
}

function sentence(text) {
  const trimmed = text.trim().replace(/[.;]$/, "");
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + ".";
}
