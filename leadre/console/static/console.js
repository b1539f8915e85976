// "/" goes to the search field, Escape leaves it. Every page works without this.
document.addEventListener("keydown", (event) => {
  const field = document.getElementById("q");
  const at = document.activeElement;
  if (event.key === "Escape" && at === field) {
    field.blur();
  }
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) {
    return;
  }
  if (at && (at.tagName === "INPUT" || at.tagName === "TEXTAREA" || at.isContentEditable)) {
    return;
  }
  event.preventDefault();
  field.focus();
  field.select();
});
