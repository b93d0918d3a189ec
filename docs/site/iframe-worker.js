// A page that was opened as a file may start no worker. The search then runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      const path = JSON.stringify(new URL(url, location).href);
      const begin = `
        self.importScripts = (...all) => all.reduce((before, each) => before.then(() =>
          new Promise((done) => {
            const script = document.createElement("script");
            script.src = each; script.onload = done; document.body.append(script);
          })), Promise.resolve());
        self.postMessage = (data) => parent.dispatchEvent(new MessageEvent("from-search", { data }));
        importScripts(${path});`;
      frame.srcdoc = `<body><script>${begin}<\/script>`;
      window.addEventListener("from-search", (event) => {
        const copy = new MessageEvent("message", { data: event.data });
        this.dispatchEvent(copy);
        if (this.onmessage) this.onmessage(copy);
      });
      frame.onload = () => {
        this.window = frame.contentWindow;
        this.waiting.forEach((data) => this.postMessage(data));
      };
      document.body.append(frame);
    }
    postMessage(data) {
      if (!this.window) this.waiting.push(data);
      else this.window.dispatchEvent(new MessageEvent("message", { data }));
    }
    terminate() {}
  };
}
