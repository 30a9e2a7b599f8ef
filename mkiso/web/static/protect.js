// Sends the password to where the disc is made, into the frame that takes the download, and follows the job as its page
// does. The password stays on the page until it is left; no form has it any more.
"use strict";

const following = document.currentScript.dataset.following;
const asked = document.querySelector("#protect form");
const loaded = new Promise((resolve) => {
  document.readyState === "complete" ? resolve() : addEventListener("load", resolve);
});

asked.addEventListener("submit", async (event) => {
  event.preventDefault();
  event.submitter.disabled = true;
  await loaded; // job.js would begin another download with the page
  const shown = document.getElementById("shown");
  shown.querySelector(".word").textContent = asked.elements.password.value;
  shown.hidden = false;
  document.body.querySelector("main").append(document.getElementById("following").content);
  const script = document.createElement("script");
  script.src = following;
  script.addEventListener("load", () => {
    startDownload();
    asked.target = "download";
    asked.submit();
    asked.remove();
  });
  document.head.append(script);
});
