// A button on every block of commands or code that copies it; of a session, the commands alone.
const SHOWN = 1500; // milliseconds that it says how it went

function commands(text) {
  const lines = text.trimEnd().split("\n");
  const typed = lines.filter((line) => line.startsWith("$ ")).map((line) => line.slice(2));
  return (typed.length ? typed : lines).join("\n");
}

document.addEventListener("DOMContentLoaded", () => {
  if (!navigator.clipboard) return; // pages that came over plain http from elsewhere
  for (const block of document.querySelectorAll("article .highlight pre")) {
    const text = block.textContent;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      const done = await navigator.clipboard.writeText(commands(text)).then(() => "Copied", () => "Not allowed");
      button.textContent = done;
      setTimeout(() => (button.textContent = "Copy"), SHOWN);
    });
    block.parentElement.append(button);
  }
});
