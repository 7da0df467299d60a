// An invitation as a link bears it: `#invite=CODE` to register, `#invite=CODE&room=R` to come into a private room, and
// `#setup=CODE` to register as the first admin, even if registration is closed. What
// stands behind the `#` reaches no server, no log and no other page; here it is taken out of the address before anything
// else is done, and kept in memory alone.

import { checkRoom } from "../core/names.js";

const CODE = /^[\w-]{16,128}$/;

// `{ code, room, isSetup }` without a room where it is one to register, or null.
export function takeInvitation() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const isSetup = asked.has("setup");
  const code = asked.get(isSetup ? "setup" : "invite");
  if (code === null) return null;
  history.replaceState(null, "", location.pathname + location.search);
  const room = asked.has("room") && !isSetup ? checkRoom(asked.get("room")).value : null;
  return CODE.test(code) && room !== undefined ? { code, room, isSetup } : null;
}
