// The field takes pasted lines; Enter looks them up, as a bar-code scanner expects.
"use strict";

const field = document.getElementById("accession_numbers");
field.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    field.form.requestSubmit();
  }
});
