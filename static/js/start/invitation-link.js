// The invitation in the page's URL: `#invite=CODE` to register, `#invite=CODE&room=R` to join a private room, and
// `#setup=CODE` to register as the first admin, even if registration is closed. A browser sends the part after `#` to no
// server. It is removed from the address bar at once, and kept in memory only.

import { checkRoom } from "../core/names.js";

const CODE = /^[\w-]{16,128}$/;

// Removes the invitation from the URL and returns it: `{ code, room, isSetup }`, or null. The room is null if the
// invitation is to register.
export function takeInvitation() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  const isSetup = parameters.has("setup");
  const code = parameters.get(isSetup ? "setup" : "invite");
  if (code === null) return null;
  history.replaceState(null, "", location.pathname + location.search);
  const room = parameters.has("room") && !isSetup ? checkRoom(parameters.get("room")).value : null;
  return CODE.test(code) && room !== undefined ? { code, room, isSetup } : null;
}
