// What a still page cannot do: the values under the pointer in every chart at once, and copying a command.
(() => {
  "use strict";
  const runs = JSON.parse(document.getElementById("data").textContent).runs;
  const papers = [...document.querySelectorAll(".time .paper")];
  const values = [...document.querySelectorAll("[data-key]")];
  const end = papers.length ? Number(papers[0].dataset.end) : 0;
  const pad = (number) => String(number).padStart(2, "0");
  const digits = (value) => value.toLocaleString("en", { maximumSignificantDigits: 3 });

  const seconds = (value) =>
    value >= 1 ? digits(value) + " s" : value >= 0.001 ? digits(value * 1e3) + " ms" : digits(value * 1e6) + " µs";

  function clock(value) {
    const whole = Math.floor(value);
    const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
    const days = Math.floor(hours / 24);
    if (days) return `${days} d ${hours % 24}:${pad(minutes)}`;
    return hours ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
  }

  function valueAt(element, time) {
    const run = runs[element.dataset.run];
    const step = Math.floor(time / run.step);
    const series = run.series[element.dataset.key] || [];
    const value = series[step] === undefined ? 0 : series[step];
    if (element.dataset.unit !== "s") return digits(value);
    return value ? seconds(value) : "–";
  }

  const marks = papers.map((paper) => {
    const cross = document.createElement("i"), now = document.createElement("span");
    cross.className = "cross";
    now.className = "now";
    cross.hidden = now.hidden = true;
    paper.append(cross, now);
    return { paper, cross, now };
  });

  let shown = -1;
  function show(share, active) {
    shown = share;
    const isShown = share >= 0;
    for (const { paper, cross, now } of marks) {
      cross.hidden = !isShown;
      now.hidden = !isShown || paper !== active;
      cross.style.left = now.style.left = share * 100 + "%";
      now.textContent = clock(share * end);
    }
    for (const element of values) element.textContent = isShown ? valueAt(element, share * end) : "";
  }

  for (const { paper } of marks) {
    paper.addEventListener("pointermove", (event) => {
      const box = paper.getBoundingClientRect();
      show(Math.min(Math.max((event.clientX - box.left) / box.width, 0), 0.9999), paper);
    });
    paper.addEventListener("pointerleave", () => show(-1));
    paper.addEventListener("blur", () => show(-1));
    paper.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -0.01, ArrowRight: 0.01 }[event.key];
      if (!move) return;
      event.preventDefault();
      show(Math.min(Math.max((shown >= 0 ? shown : 0.5) + move, 0), 0.9999), paper);
    });
  }

  for (const button of document.querySelectorAll("[data-copy]")) {
    if (!navigator.clipboard) continue;
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.previousElementSibling.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
})();
