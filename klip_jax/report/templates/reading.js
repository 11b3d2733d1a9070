"use strict";
// The report's one script: tabs, filters, sorting, colours, and an image at full size.
// Without it every image and section is on the page all the same.
(() => {
  const root = document.documentElement;
  const all = (what, where = document) => [...where.querySelectorAll(what)];
  const get = (id) => document.getElementById(id);
  root.classList.add("js");

  // Tabs: the links of the navigation, of which one section is open.
  const links = all(".tabs a");
  const sections = links.map((link) => get(link.hash.slice(1)));
  const open = (index, focus) => {
    links.forEach((link, i) => {
      link.setAttribute("aria-selected", i === index);
      link.tabIndex = i === index ? 0 : -1;
      sections[i].hidden = i !== index;
    });
    if (focus) links[index].focus();
  };
  document.querySelector(".tabs").setAttribute("role", "tablist");
  links.forEach((link, i) => {
    link.setAttribute("role", "tab");
    link.setAttribute("aria-controls", sections[i].id);
    sections[i].setAttribute("role", "tabpanel");
    link.addEventListener("click", (event) => {
      event.preventDefault();
      history.replaceState(null, "", link.hash);
      open(i);
    });
    link.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) open((i + step + links.length) % links.length, true);
    });
  });
  const follow = () => {
    const target = location.hash && get(decodeURIComponent(location.hash.slice(1)));
    const index = target ? sections.findIndex((part) => part.contains(target)) : 0;
    open(Math.max(index, 0));
    if (target && target.matches(".card")) {
      if (target.hidden) show("", "");
      target.scrollIntoView();
    }
  };

  // Light, dark, or what the system says; kept where the browser lets us.
  const themes = ["auto", "light", "dark"];
  const paint = (theme) => {
    root.dataset.theme = theme;
    get("theme").textContent = `Theme: ${theme}`;
  };
  let theme = "auto";
  try {
    theme = localStorage.getItem("klip-theme") || theme;
  } catch (error) { /* a page from a file may have no storage */ }
  paint(themes.includes(theme) ? theme : "auto");
  get("theme").addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length];
    paint(next);
    try {
      localStorage.setItem("klip-theme", next);
    } catch (error) { /* as above */ }
  });

  // Cards and rows of the table: which are shown, and in which order.
  const cards = all(".card");
  const rows = all("#scores tbody tr");
  const filters = all(".filters button");
  const search = get("search");
  const show = (badge, words) => {
    if (search && search.value !== words) search.value = words;
    filters.forEach((f) => f.setAttribute("aria-pressed", f.dataset.filter === badge));
    const wanted = words.trim().toLowerCase();
    const fits = ({ dataset: about }) =>
      (!badge || about.badge.split(" ").includes(badge)) &&
      `${about.name} ${about.group}`.toLowerCase().includes(wanted);
    [...cards, ...rows].forEach((each) => { each.hidden = !fits(each); });
    if (get("nothing")) get("nothing").hidden = cards.some((card) => !card.hidden);
  };
  const pressed = () => filters.find((f) => f.getAttribute("aria-pressed") === "true");
  filters.forEach((filter) =>
    filter.addEventListener("click", () => show(filter.dataset.filter, search.value)));
  if (search) {
    search.addEventListener("input", () => show(pressed().dataset.filter, search.value));
  }
  if (get("shared")) {
    const share = () => root.classList.toggle("one-scale", get("shared").checked);
    get("shared").addEventListener("change", share);
    share();
  }

  const heads = all("#scores th");
  heads.forEach((head) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const key = head.dataset.sort;
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const numeric = head.classList.contains("n");
      const order = (a, b) => {
        const [one, two] = [a.dataset[key], b.dataset[key]];
        // What has no number stays last, whichever way the others go.
        if (numeric && (one === undefined || two === undefined)) {
          return (one === undefined) - (two === undefined);
        }
        const sign = numeric
          ? one - two
          : one.localeCompare(two, undefined, { numeric: true });
        return up ? sign : -sign;
      };
      rows.sort(order).forEach((row) => row.parentNode.append(row));
    });
  });

  // An image at full size: what is chosen stays chosen from image to image.
  const viewer = get("viewer");
  const over = get("over");
  const sliders = { opacity: 70, window: 100, level: 50 };
  let now = null;
  let laid = true;
  const options = (select, figures) => {
    const before = select.value;
    select.replaceChildren(
      ...figures.map((figure) => new Option(figure.dataset.title)));
    const titles = figures.map((figure) => figure.dataset.title);
    if (titles.includes(before)) select.value = before;
    select.parentNode.hidden = !titles.length;
  };
  const picture = (kind, title) =>
    all(`[data-kind=${kind}]`, now).find((f) => f.dataset.title === title);
  const draw = () => {
    const image = picture("image", get("which-image").value);
    const map = picture("map", get("which-map").value);
    get("base").src = image ? image.querySelector("img").src : "";
    get("base").hidden = !image;
    over.hidden = !map || !laid;
    if (map) {
      const drawn = map.querySelector("img");
      over.src = drawn.src;
      over.className = `over${drawn.classList.contains("signed") ? " signed" : ""}`;
      over.style.setProperty("--k", drawn.style.getPropertyValue("--k"));
    }
    const [opacity, width, level] = Object.keys(sliders).map((id) => get(id).value / 100);
    over.style.opacity = opacity;
    all("#window-level feComponentTransfer > *").forEach((part) => {
      part.setAttribute("slope", 1 / width);
      part.setAttribute("intercept", 0.5 - level / width);
    });
    get("marks").hidden = !get("show-marks").checked;
  };
  const look = (card) => {
    now = card;
    const frame = card.querySelector(".frame");
    get("stage").style.aspectRatio = frame.style.aspectRatio;
    get("stage").style.setProperty("--ratio", frame.style.aspectRatio.replace("/", " / "));
    get("stage").classList.toggle("small", frame.classList.contains("small"));
    get("viewer-name").textContent = card.dataset.name;
    get("viewer-badges").replaceChildren(
      ...all(".badge", card).map((badge) => badge.cloneNode(true)));
    get("viewer-numbers").textContent = all(".said dl > div", card)
      .map((pair) => [...pair.children].map((part) => part.textContent).join(" "))
      .join(" · ");
    const marks = card.querySelector(".marks");
    get("marks").replaceChildren(...(marks ? [marks.cloneNode(true)] : []));
    options(get("which-image"), all("[data-kind=image]", card));
    options(get("which-map"), all("[data-kind=map]", card));
    draw();
  };
  const step = (by) => {
    const shown = cards.filter((card) => !card.hidden);
    const index = shown.indexOf(now) + by;
    if (shown[index]) look(shown[index]);
  };
  const begin = (card) => {
    const titles = all("[data-kind=image]", card).map((f) => f.dataset.title);
    look(card);
    if (!now.dataset.seen && titles.includes("Reconstruction")) {
      get("which-image").value = "Reconstruction";
      draw();
    }
    cards.forEach((each) => { each.dataset.seen = "yes"; });
    viewer.showModal();
  };
  const reset = () => {
    Object.entries(sliders).forEach(([id, value]) => { get(id).value = value; });
    draw();
  };
  const nudge = (by) => {
    get("opacity").value = Number(get("opacity").value) + by;
    draw();
  };
  cards.forEach((card) => {
    card.querySelector(".open").addEventListener("click", () => begin(card));
    all(".frame", card).forEach((frame) =>
      frame.addEventListener("click", () => begin(card)));
  });
  get("previous").addEventListener("click", () => step(-1));
  get("next").addEventListener("click", () => step(1));
  get("close").addEventListener("click", () => viewer.close());
  get("reset").addEventListener("click", reset);
  all("#viewer select, #viewer input").forEach((input) =>
    input.addEventListener("input", draw));
  viewer.addEventListener("close", () => {
    if (now) now.querySelector(".open").focus();
  });
  viewer.addEventListener("keydown", (event) => {
    if (event.target.matches("select, input[type=range]") || event.ctrlKey) return;
    const keys = {
      ArrowLeft: () => step(-1),
      ArrowRight: () => step(1),
      ArrowUp: () => nudge(10),
      ArrowDown: () => nudge(-10),
      m: () => { laid = !laid; draw(); },
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  // As on a reading station: across is the window, down the level.
  const stage = get("stage");
  stage.addEventListener("pointerdown", (event) => stage.setPointerCapture(event.pointerId));
  stage.addEventListener("pointermove", (event) => {
    if (!stage.hasPointerCapture(event.pointerId)) return;
    get("window").value = Number(get("window").value) + event.movementX / 3;
    get("level").value = Number(get("level").value) + event.movementY / 3;
    draw();
  });

  window.addEventListener("hashchange", follow);
  follow();
})();
