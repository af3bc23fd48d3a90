// The stream of /events: hands on what is told, and says how long nothing was.
//
// A browser connects again by itself after most faults. It does not after an answer that is no stream, nor when a
// connection stays open and silent, so both are ended here, and begun anew.

const SILENT_SECONDS = 4; // The server tells something every second.
const RENEW_SECONDS = 10;

export class Feed {
  /** `handlers` has a function for each event, and `stood(isLive, silentSeconds)`, called once a second or more. */
  constructor(url, handlers) {
    this.url = url;
    this.handlers = handlers;
    this.heardAt = this.openedAt = performance.now();
    this.isBroken = false;
    this.source = null;
    setInterval(() => this.look(), 1000);
    this.open();
  }

  open() {
    this.source?.close();
    this.openedAt = performance.now();
    const source = (this.source = new EventSource(this.url));
    for (const name of ["snapshot", "totals", "second"]) {
      source.addEventListener(name, (event) => {
        this.heardAt = performance.now();
        this.isBroken = false;
        this.handlers[name](JSON.parse(event.data));
        if (name === "snapshot") this.look();
      });
    }
    source.addEventListener("error", () => {
      this.isBroken = true;
      this.look();
    });
  }

  look() {
    const now = performance.now();
    const silentSeconds = (now - this.heardAt) / 1000;
    const isOver = this.source.readyState === EventSource.CLOSED;
    const waits = isOver ? 1 : RENEW_SECONDS;
    if (Math.min(silentSeconds, (now - this.openedAt) / 1000) > waits) this.open();
    this.handlers.stood(!this.isBroken && silentSeconds < SILENT_SECONDS, silentSeconds);
  }
}
