// The text of a selection of messages, as it is copied: `[time] name: content` for each message.

const INPUTS = "input, textarea";

// Copies messages of `timeline` as text. Within the content of one message the browser copies what is selected.
export function copyMessagesAsText(timeline) {
  document.addEventListener("copy", (event) => {
    const selection = getSelection();
    if (selection.isCollapsed || event.target.closest?.(INPUTS)) return;
    const range = selection.getRangeAt(0);
    const lines = [...timeline.children].filter((line) => range.intersectsNode(line));
    const texts = lines.map((line) => textOf(line, range)).filter((text) => text !== "");
    if (texts.length === 0 || isWithinContent(range)) return;
    event.clipboardData.setData("text/plain", texts.join("\n"));
    event.preventDefault();
  });
}

function isWithinContent({ commonAncestorContainer: container }) {
  const element = container instanceof Element ? container : container.parentElement;
  return element.closest(".content") !== null;
}

// What the range has of a line. The name and the time of a message are there if the content is selected from its
// beginning. The title of a day is its date.
function textOf(line, range) {
  const content = line.querySelector(".content");
  const { text, isFromBeginning } = selectedPart(content ?? line, range);
  if (content === null) return text === "" ? "" : line.title || text;
  if (!isFromBeginning || text === "") return text;
  return `[${line.querySelector("time").textContent}] ${line.querySelector(".username").textContent}: ${text}`;
}

// The text of an element within the range, and whether the range begins before it.
function selectedPart(element, range) {
  const part = document.createRange();
  part.selectNodeContents(element);
  const isFromBeginning = range.compareBoundaryPoints(Range.START_TO_START, part) < 0;
  if (!isFromBeginning) part.setStart(range.startContainer, range.startOffset);
  if (range.compareBoundaryPoints(Range.END_TO_END, part) < 0) part.setEnd(range.endContainer, range.endOffset);
  return { text: part.toString(), isFromBeginning };
}
