// The entries of the browser's history, so that Back and Forward lead from screen to screen. The state of each entry is
// `{ room, isAccount }`: the room, or null for the start screen, and whether it was joined as an account.

const START = { room: null, isAccount: false };

export class ScreenHistory {
  // The state of the screen that is shown.
  #shown = START;

  // `onMove` is called with the state of the entry that the user has gone to.
  constructor(onMove) {
    window.addEventListener("popstate", ({ state }) => {
      // An entry without a state is new: the user has changed the fragment of the address.
      if (state === null) history.replaceState(this.#shown, "");
      else {
        this.#shown = state;
        onMove(state);
      }
    });
  }

  // The state of the present entry; null if the page is new in it.
  get entry() {
    return history.state;
  }

  // A room was entered. It has an entry of its own, and an address that leads others to the room.
  enterRoom(room, isAccount) {
    const link = new URL(location.pathname, location.href);
    link.searchParams.set("room", room);
    const isNew = this.entry !== null && this.entry.room !== room;
    this.#write(isNew, { room, isAccount }, link);
  }

  // The room was left by the user, who can come back to it.
  leaveRoom() {
    this.#write(true, START, location.pathname);
  }

  // The room was lost. Its entry becomes one of the start screen, so that Back does not lead there.
  loseRoom() {
    this.#write(false, START, location.pathname);
  }

  // The start screen was opened by an address, which stays as it is.
  start() {
    this.#write(false, START, location.href);
  }

  #write(isNew, state, url) {
    this.#shown = state;
    if (isNew) history.pushState(state, "", url);
    else history.replaceState(state, "", url);
  }
}
