// Events of the browser that concern a connection.

export function isPageVisible() {
  return document.visibilityState === "visible";
}

// Keeps a socket informed of the network and of the page's visibility, until `signal` aborts.
export function connectPageEvents(socket, signal) {
  document.addEventListener("visibilitychange", () => isPageVisible() && socket.retry(), { signal });
  window.addEventListener("offline", () => socket.networkLost(), { signal });
  window.addEventListener("online", () => socket.networkRestored(), { signal });
}
