// The beginning of a new day in the viewer's time zone, from which "Today" and "Yesterday" mean other days.

// A machine that slept, or a clock that was set, passes midnight without the timer.
const CHECK_MS = 60_000;

// Calls `listener` at each midnight, and after any other change of the date.
export function onNewDay(listener) {
  let shown = new Date().toDateString();
  const check = () => {
    const now = new Date();
    setTimeout(check, Math.min(CHECK_MS, nextMidnight(now) - now));
    if (now.toDateString() === shown) return;
    shown = now.toDateString();
    listener();
  };
  check();
}

function nextMidnight(now) {
  return new Date(now.getFullYear(), now.getMonth(), now.getDate() + 1);
}
