// Keeps a page as new as the server: takes renderings from its stream, puts
// them in place without disturbing what the reader has open, and keeps ages.
(() => {
  "use strict";
  const stream = document.body.dataset.stream;
  const main = document.getElementById("content");
  const lost = document.getElementById("lost");
  const live = document.getElementById("live");
  const silence = 25000; // ms; the server speaks every 10 s
  let version = document.body.dataset.version;
  let source = null;
  let heard = 0;
  let retry = 0;

  // age says how long ago a time is, as the server does (HumanDuration in
  // k8s.io/apimachinery/pkg/util/duration).
  function age(then) {
    const s = Math.floor((Date.now() - then) / 1000);
    const m = Math.floor(s / 60), h = Math.floor(s / 3600), d = Math.floor(s / 86400), y = Math.floor(d / 365);
    const pair = (big, small, rest, unit) => big + small + (rest ? rest + unit : "");
    if (s < 1) return "just now";
    let text;
    if (s < 120) text = s + "s";
    else if (m < 10) text = pair(m, "m", s % 60, "s");
    else if (m < 180) text = m + "m";
    else if (h < 8) text = pair(h, "h", m % 60, "m");
    else if (h < 48) text = h + "h";
    else if (d < 8) text = pair(d, "d", h % 24, "h");
    else if (d < 730) text = d + "d";
    else if (d < 2920) text = pair(y, "y", d % 365, "d");
    else text = y + "y";
    return text + " ago";
  }

  function set(node, text) {
    if (node.textContent !== text) node.textContent = text;
  }

  function two(n, width = 2) {
    return String(n).padStart(width, "0");
  }

  // times puts the times of a tree into the reader's zone and ages.
  function times(root) {
    for (const t of root.querySelectorAll("time[data-age]")) {
      const d = new Date(t.dateTime);
      set(t, age(d.getTime()));
      t.title = d.toLocaleString();
    }
    for (const t of root.querySelectorAll("time[data-clock]")) {
      const d = new Date(t.dateTime);
      set(t, [d.getHours(), d.getMinutes(), d.getSeconds()].map((n) => two(n)).join(":") + "." + two(d.getMilliseconds(), 3));
      t.title = d.toLocaleString();
    }
  }

  // morph makes a node like another one, keeping every element that is still
  // there: focus, selection and opened folds stay.
  function morph(from, to) {
    for (const a of [...from.attributes]) {
      if (!to.hasAttribute(a.name) && !(from.localName === "details" && a.name === "open")) from.removeAttribute(a.name);
    }
    for (const a of to.attributes) {
      if (from.getAttribute(a.name) !== a.value) from.setAttribute(a.name, a.value);
    }
    const known = new Map();
    for (const c of from.children) if (c.id) known.set(c.id, c);
    let at = from.firstChild;
    for (const want of [...to.childNodes]) {
      const same = want.id && known.get(want.id);
      if (same && same !== at) {
        from.insertBefore(same, at);
        at = same;
      }
      if (at && alike(at, want)) {
        if (at.nodeType === Node.ELEMENT_NODE) morph(at, want);
        else if (at.nodeValue !== want.nodeValue) at.nodeValue = want.nodeValue;
        at = at.nextSibling;
      } else {
        from.insertBefore(want, at);
      }
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  }

  function alike(a, b) {
    return a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.id || "") === (b.id || "");
  }

  function take(event) {
    const u = JSON.parse(event.data);
    if (u.build !== document.body.dataset.build) {
      location.reload(); // the program is a newer one
      return;
    }
    const next = new DOMParser().parseFromString("<main>" + u.html + "</main>", "text/html").querySelector("main");
    times(next);
    next.id = main.id;
    morph(main, next);
    document.title = u.title + " · Berth";
    version = u.version;
  }

  function connected() {
    heard = Date.now();
    retry = 0;
    lost.hidden = true;
    set(live, "Live");
    live.classList.add("on");
  }

  function disconnected() {
    if (lost.hidden) {
      lost.hidden = false;
      set(lost, "Connection lost, reconnecting… What you see may be old.");
    }
    set(live, "Not connected");
    live.classList.remove("on");
  }

  function connect() {
    close();
    heard = Date.now();
    source = new EventSource(stream + "?have=" + encodeURIComponent(version));
    source.addEventListener("beat", connected);
    source.addEventListener("page", (e) => { connected(); take(e); });
    source.addEventListener("error", () => {
      disconnected();
      if (source.readyState === EventSource.CLOSED) again();
    });
  }

  function close() {
    if (source) source.close();
    source = null;
  }

  // again tries anew where the browser gives up: the server answered, but not
  // with a stream. Who is logged out is sent to the login.
  async function again() {
    close();
    retry = Math.min(retry + 1, 6);
    await new Promise((done) => setTimeout(done, 500 * 2 ** retry));
    if (source || document.hidden) return;
    try {
      const r = await fetch(location.href, { method: "HEAD", redirect: "manual", cache: "no-store" });
      if (r.type === "opaqueredirect") {
        location.reload();
        return;
      }
    } catch {
      // still away
    }
    connect();
  }

  set(document.getElementById("zone"), Intl.DateTimeFormat().resolvedOptions().timeZone || "local time");
  times(document);
  setInterval(() => times(main), 1000);
  if (!stream) return;
  connect();
  setInterval(() => {
    if (source && Date.now() - heard > silence) {
      disconnected();
      connect();
    }
  }, 5000);
  // Browsers allow few connections to a server: pages that nobody sees give theirs up.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) close();
    else if (!source) connect();
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", (e) => { if (e.persisted && !source) connect(); });
})();
