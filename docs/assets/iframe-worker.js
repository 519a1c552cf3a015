// Search runs in a worker, which browsers refuse to pages that are opened from disk. For these, this stands in for it:
// the same script in a hidden frame of the page. (The theme looks for a script of this name before it fetches another.)
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.srcdoc = "<!doctype html><title>search</title>";
      this.inside = new Promise((ready) => {
        frame.onload = async () => {
          const inside = frame.contentWindow;
          const load = (source) =>
            new Promise((done, failed) => {
              const script = frame.contentDocument.createElement("script");
              Object.assign(script, { src: new URL(source, location.href).href, onload: done, onerror: failed });
              frame.contentDocument.body.append(script);
            });
          inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
          inside.importScripts = async (...sources) => {
            for (const source of sources) await load(source);
          };
          await load(address);
          ready(inside);
        };
      });
      document.body.append(frame);
    }

    async postMessage(data) {
      (await this.inside).dispatchEvent(new MessageEvent("message", { data }));
    }
  };
}
