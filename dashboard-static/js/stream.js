// The one event stream of this browser. Browsers allow six connections to a server, so ten open pages must not have ten
// streams: the page that holds a lock has the stream and passes everything on; when it goes, the next one takes over.
// Where there are no locks (plain http on a name that is not localhost) each page has a stream of its own.

const EVENTS = ["state", "event", "gap", "reset", "tick"];
const LOCK = "mesh-stream";

/** Calls `tell(name, data)` for each event, and `tell("lost")` when the connection breaks. */
export function follow(tell) {
  if (!navigator.locks || !window.BroadcastChannel) {
    open(tell, () => {});
    return;
  }
  const channel = new BroadcastChannel(LOCK);
  let lastState = null;
  let leads = false;
  const take = (name, data) => {
    if (name === "state") lastState = data;
    tell(name, data);
  };
  channel.onmessage = ({ data: message }) => {
    if (message.hello) {
      // A page that comes later must not wait for the next change.
      if (leads && lastState) channel.postMessage({ name: "state", data: lastState });
    } else if (!leads) take(message.name, message.data);
  };
  channel.postMessage({ hello: true });
  navigator.locks.request(LOCK, () => {
    leads = true;
    open(take, (name, data) => channel.postMessage({ name, data }));
    // The lock is held until this page is gone.
    return new Promise(() => {});
  });
}

function open(tell, pass) {
  const both = (name, data) => {
    tell(name, data);
    pass(name, data);
  };
  const source = new EventSource("/api/v1/events");
  document.documentElement.dataset.stream = "own";
  for (const name of EVENTS) source.addEventListener(name, (event) => both(name, JSON.parse(event.data)));
  source.onerror = () => {
    both("lost", null);
    // The browser itself comes back from a broken connection, but not from an answer that is no stream.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => open(tell, pass), 1000 + Math.random() * 1000);
  };
}
