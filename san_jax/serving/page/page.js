// The page: state is one search, which is asked for again whenever something of it changes.
const $ = (id) => document.getElementById(id);
const BUSY_POLL = 1000, QUIET_POLL = 3000; // milliseconds between two looks at the galleries
const EARLIER = 20; // searches to which one can go back
const SEEN_HEIGHT = 320, STRIP_HEIGHT = 96, LARGE_HEIGHT = 900; // pixels
const WIDE = 0.85; // a picture wider than this share of its height may show more than one person

// queries: pictures of the visitor; like: the found picture that is searched for; right, wrong: id -> picture found.
let search = emptySearch();
let galleries = null, answer = null, asked = 0, answeredVersion = -1;
const earlier = [];

function emptySearch() {
  return { queries: [], like: null, right: new Map(), wrong: new Map() };
}

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const counted = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
const isActive = () => search.queries.length > 0 || search.like !== null || search.right.size > 0;
const cameraOf = (hit) => (hit.camera === "" ? "" : `Camera ${hit.camera}`);
// Four digits: squared distances may be as large as some hundreds, cosine distances are below 2.
const digits = (distance) => distance.toFixed(Math.max(0, 3 - Math.max(0, Math.floor(Math.log10(distance || 1)))));
const timeOf = (hit) => hit.time.replace("T", " ");
const pictureOf = (id, height) => `/api/pictures/${id}?height=${height}`;

// ---- Asking the server

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  let line = response.statusText;
  try {
    line = (await response.json()).error;
  } catch { /* no JSON: the status has to do */ }
  throw Object.assign(new Error(line.charAt(0).toUpperCase() + line.slice(1) + "."), { status: response.status });
}

const askJson = (path, body) =>
  ask(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });

function complain(line) {
  const close = element("button", { type: "button", className: "quiet", textContent: "Close" });
  close.addEventListener("click", () => $("trouble").replaceChildren());
  $("trouble").replaceChildren(element("p", {}, element("span", { textContent: line }), close));
}

// Runs what a visitor has asked for; what goes wrong is shown in one line.
async function attempt(work) {
  $("trouble").replaceChildren();
  try {
    return await work();
  } catch (error) {
    complain(error.message);
    return null;
  }
}

// ---- Galleries

async function lookAtGalleries() {
  let wait = QUIET_POLL;
  try {
    galleries = await (await ask("/api/galleries")).json();
    showGalleries();
    showFilters();
    if (galleries.galleries.some((gallery) => gallery.state !== "watching")) wait = BUSY_POLL;
    if (isActive() && answer && answeredVersion !== galleries.version) await find({ quietly: true });
    if (!isActive()) showNothing();
    $("galleries").classList.remove("lost");
  } catch (error) {
    if (!$("galleries").classList.contains("lost")) complain(error.message);
    $("galleries").classList.add("lost");
  }
  setTimeout(lookAtGalleries, wait);
}

function showGalleries() {
  galleries.galleries.forEach((gallery, place) => {
    let shown = $("galleries").children[place];
    if (!shown) {
      shown = element("div", { className: "gallery", title: gallery.place });
      shown.append(element("b"), " ", element("span", { className: "state" }), element("progress"),
        element("details", {}, element("summary"), element("ul")), element("div", { className: "bad" }));
      $("galleries").append(shown);
    }
    const [name, state, bar, details, bad] = shown.children;
    const busy = gallery.state !== "watching";
    name.textContent = gallery.name;
    state.textContent = gallery.state === "listing" ? "is being listed …"
      : busy ? `${gallery.done.toLocaleString("en")} of ${counted(gallery.pictures, "picture")}`
      : counted(gallery.searchable, "picture");
    bar.hidden = !busy;
    bar.setAttribute("aria-label", `${gallery.name}: embedding pictures`);
    bar.max = Math.max(1, gallery.pictures);
    if (gallery.state === "listing") bar.removeAttribute("value");
    else bar.value = gallery.done;
    details.hidden = gallery.unreadable === 0;
    details.firstChild.textContent = `${counted(gallery.unreadable, "picture")} cannot be read`;
    details.lastChild.replaceChildren(...gallery.first_unreadable.map(({ picture, why }) =>
      element("li", { textContent: `${picture}: ${why}` })));
    bad.textContent = gallery.trouble;
    bad.hidden = !gallery.trouble;
  });
}

// Chips keep their state and focus: they are made anew only if there are others.
function showChips(field, chips) {
  const box = field.querySelector(".chips");
  field.hidden = chips.length < 2;
  if (box.dataset.values !== JSON.stringify(chips.map((chip) => chip.value))) {
    const checked = new Set(checkedIn(field));
    box.replaceChildren(...chips.map(({ value }) => element("label", {},
      element("input", { type: "checkbox", value, checked: checked.has(value) }), element("b"), element("span"))));
    box.dataset.values = JSON.stringify(chips.map((chip) => chip.value));
  }
  chips.forEach(({ label, pictures }, place) => {
    box.children[place].children[1].textContent = label;
    box.children[place].children[2].textContent = pictures.toLocaleString("en");
  });
}

function checkedIn(field) {
  return [...field.querySelectorAll("input:checked")].map((input) => input.value);
}

function showFilters() {
  showChips($("places"), galleries.galleries.map((gallery) =>
    ({ value: String(gallery.number), label: gallery.name, pictures: gallery.searchable })));
  showChips($("cameras"), galleries.cameras.map(({ camera, pictures }) =>
    ({ value: camera, label: camera, pictures })));
  const total = galleries.galleries.reduce((sum, gallery) => sum + gallery.searchable, 0);
  $("times").hidden = galleries.with_times === 0;
  $("times-words").textContent = galleries.with_times === 0
    ? (total ? "These pictures have no times." : "")
    : `Pictures are from ${galleries.first_time.replace("T", " ")} to ${galleries.last_time.replace("T", " ")}.`
      + (galleries.with_times < total ? ` ${counted(total - galleries.with_times, "has", "have")} no time.` : "");
  for (const id of ["from", "to"]) {
    $(id).min = galleries.first_time;
    $(id).max = galleries.last_time;
  }
}

// ---- Pictures of the visitor

async function take(files, { more = false } = {}) {
  const pictures = [...files];
  if (!pictures.length) return;
  await attempt(async () => {
    $("drop").classList.add("busy");
    try {
      const made = [];
      for (const file of pictures) {
        if (galleries && file.size > galleries.most_bytes) {
          throw new Error(`${file.name} has more than ${galleries.most_bytes / 1e6} MB; give a smaller one.`);
        }
        try {
          const path = `/api/queries?name=${encodeURIComponent(file.name || "pasted.png")}`;
          made.push(await (await ask(path, { method: "POST", body: file })).json());
        } catch (error) {
          throw new Error(`${file.name || "The picture"}: ${error.message}`);
        }
      }
      remember();
      if (more) search = { ...search, queries: [...search.queries, ...made] };
      else search = { ...emptySearch(), queries: made };
      await find();
    } finally {
      $("drop").classList.remove("busy");
    }
  });
}

function remember() {
  if (!isActive()) return;
  earlier.push({ ...search, right: new Map(search.right), wrong: new Map(search.wrong) });
  if (earlier.length > EARLIER) earlier.shift();
}

function likeThis(hit) {
  remember();
  search = { ...emptySearch(), like: hit };
  attempt(find);
  $("results").focus({ preventScroll: true });
  window.scrollTo({ top: window.innerWidth < 832 ? $("results").offsetTop - 12 : 0 });
}

function showQueries() {
  const shown = search.queries.map((query, place) => {
    const cut = element("div", { className: "cut" });
    const image = element("img", { src: `/api/queries/${query.id}`, alt: `Query ${query.name}` });
    const [x, y, w, h] = query.box ?? [0, 0, query.width, query.height];
    const height = 176, scale = Math.min(height / h, 240 / w);
    Object.assign(cut.style, { width: `${w * scale}px`, height: `${h * scale}px` });
    Object.assign(image.style, { width: `${query.width * scale}px`, left: `${-x * scale}px`, top: `${-y * scale}px` });
    cut.append(image);
    const draw = element("button", { type: "button", textContent: query.box ? "Other box" : "Draw a box" });
    draw.addEventListener("click", () => openBox(place));
    const drop = element("button", { type: "button", className: "quiet", textContent: "Remove" });
    drop.setAttribute("aria-label", `Remove ${query.name}`);
    drop.addEventListener("click", () => {
      remember();
      search = { ...search, queries: search.queries.filter((other) => other !== query) };
      attempt(find);
      $("file").focus();
    });
    const item = element("li", {}, cut);
    if (!query.box && query.width > WIDE * query.height) {
      item.append(element("p", { className: "hint",
        textContent: "Does it show more than one person? Draw a box around the one." }));
    }
    item.append(element("div", { className: "buttons" }, draw, drop));
    return item;
  });
  if (search.like) {
    const image = element("img", { src: pictureOf(search.like.id, SEEN_HEIGHT), alt: `Query ${search.like.name}` });
    const box = element("div", { className: "cut liked" }, image);
    shown.push(element("li", {}, box, element("p", { className: "faint", textContent: wordsOf(search.like) })));
  }
  $("queries").replaceChildren(...shown);
  const has = search.queries.length > 0;
  $("choose").textContent = has || search.like ? "Choose another picture" : "Choose a picture";
  $("choose").classList.toggle("primary", !has && !search.like);
  $("add").hidden = !has;
  $("drop-words").hidden = has || search.like !== null;
  $("back").hidden = earlier.length === 0;
}

const wordsOf = (hit) => [cameraOf(hit), timeOf(hit)].filter(Boolean).join(", ") || hit.name;

// ---- Searching

function wanted() {
  const galleriesAsked = $("places").hidden ? [] : checkedIn($("places")).map(Number);
  return {
    queries: search.queries.map((query) => query.id),
    like: search.like ? [search.like.id] : [],
    right: [...search.right.keys()],
    wrong: [...search.wrong.keys()],
    cameras: $("cameras").hidden ? [] : checkedIn($("cameras")),
    galleries: galleriesAsked,
    from: $("from").value || null,
    to: $("to").value || null,
    top: Number($("top").value),
  };
}

async function find({ quietly = false } = {}) {
  if (!quietly) { // what the visitor has chosen has not changed, and may have the focus
    showQueries();
    showMarked();
  }
  if (!isActive()) {
    answer = null;
    showFound();
    return;
  }
  const number = ++asked, version = galleries?.version ?? 0, begin = performance.now();
  if (!quietly) $("results").setAttribute("aria-busy", "true");
  try {
    const found = await (await askJson("/api/search", wanted())).json();
    if (number !== asked) return; // a later one is on its way
    const before = answer?.found.map((hit) => hit.id).join();
    answer = found;
    answeredVersion = version;
    showFound();
    if (!quietly || before !== found.found.map((hit) => hit.id).join()) sayFound(performance.now() - begin);
  } finally {
    if (number === asked) $("results").removeAttribute("aria-busy");
  }
}

function sayFound(milliseconds) {
  const number = answer.found.length;
  const within = answer.found.filter((hit) => hit.within).length;
  const under = answer.threshold === null ? "" : `, ${within} under the threshold ${digits(answer.threshold)}`;
  $("said").textContent = number === 0 ? ""
    : `${number} of ${counted(answer.searched, "picture")}${under} (${Math.round(milliseconds)} ms)`;
  if (number === 0) $("said").textContent = "No pictures found.";
}

function showFound() {
  const hits = answer?.found ?? [], list = $("found");
  const focused = document.activeElement?.closest?.(".card");
  const role = document.activeElement?.dataset?.role;
  const place = focused ? [...list.querySelectorAll(".card")].indexOf(focused) : -1;
  const known = new Map([...list.querySelectorAll(".card")].map((card) => [Number(card.dataset.id), card]));
  const shown = [];
  hits.forEach((hit, number) => {
    if (hit.within === false && (number === 0 || hits[number - 1].within)) {
      const words = number === 0 ? "none is under the threshold; the nearest are" : "beyond the threshold";
      shown.push(element("li", { className: "divider", textContent: words }));
    }
    shown.push(filled(known.get(hit.id) ?? emptyCard(hit), hit, number + 1));
  });
  if (shown.length !== list.children.length || shown.some((card, number) => card !== list.children[number])) {
    list.replaceChildren(...shown);
  }
  if (place >= 0) { // the card may have moved or vanished
    const cards = [...list.querySelectorAll(".card")];
    const card = focused.isConnected ? focused : cards[Math.min(place, cards.length - 1)];
    (card?.querySelector(`[data-role=${role}]`) ?? $("results")).focus();
  }
  $("save").hidden = hits.length === 0;
  $("keys").hidden = hits.length === 0;
  if (!answer) $("said").textContent = "";
  showNothing();
}

function emptyCard(hit) {
  const card = element("li", { className: "card" });
  card.dataset.id = hit.id;
  const image = element("img", { src: pictureOf(hit.id, SEEN_HEIGHT), loading: "lazy", width: 160, height: 320 });
  const like = element("button", { type: "button", className: "like" }, image, element("span", { className: "rank" }));
  const facts = element("div", { className: "facts" },
    element("div", { className: "distance" }, element("span"), element("span", { className: "verdict" })),
    element("span", { className: "where" }), element("span", { className: "where" }));
  const button = (role, words, label) => {
    const made = element("button", { type: "button", textContent: words });
    made.dataset.role = role;
    if (label) made.setAttribute("aria-label", label);
    return made;
  };
  like.dataset.role = "like";
  const marks = element("div", { className: "marks" }, button("right", "Right"), button("wrong", "Wrong"),
    button("details", "…", "Details"));
  card.append(like, facts, marks);
  image.addEventListener("error", () => { image.alt = "This picture is gone"; });
  card.addEventListener("click", (event) => {
    const role = event.target.closest("button")?.dataset.role;
    if (role) act(role, card.hit);
  });
  return card;
}

function filled(card, hit, rank) {
  const [like, facts, marks] = card.children;
  const words = [`rank ${rank}`, cameraOf(hit), timeOf(hit), `distance ${digits(hit.distance)}`].filter(Boolean);
  card.hit = hit;
  card.className = `card${search.right.has(hit.id) ? " right" : ""}${hit.within ? " within" : ""}`;
  like.firstChild.alt = `Person, ${words.join(", ")}`;
  like.setAttribute("aria-label", `More like this: ${words.join(", ")}`);
  like.lastChild.textContent = rank;
  facts.children[0].firstChild.textContent = digits(hit.distance);
  facts.children[0].lastChild.textContent = hit.within === null ? "" : hit.within ? "✓ under" : "over";
  facts.children[0].lastChild.title = hit.within === null ? "" : `${hit.within ? "under" : "over"} the threshold`;
  facts.children[1].textContent = cameraOf(hit) || hit.name;
  facts.children[2].textContent = timeOf(hit);
  card.title = hit.name;
  marks.children[0].setAttribute("aria-pressed", search.right.has(hit.id));
  marks.children[0].setAttribute("aria-label", `Right, rank ${rank}`);
  marks.children[1].setAttribute("aria-label", `Wrong, rank ${rank}`);
  marks.children[2].setAttribute("aria-label", `Details, rank ${rank}`);
  return card;
}

function act(role, hit) {
  if (role === "like") likeThis(hit);
  else if (role === "details") openDetails(hit);
  else mark(role, hit);
}

function mark(kind, hit) {
  const [own, other] = kind === "right" ? [search.right, search.wrong] : [search.wrong, search.right];
  if (own.has(hit.id)) own.delete(hit.id);
  else own.set(hit.id, hit);
  other.delete(hit.id);
  attempt(find);
}

function showMarked() {
  const strip = (kind, title, words) => {
    if (!search[kind].size) return [];
    const items = [...search[kind].values()].map((hit) => {
      const image = element("img", { src: pictureOf(hit.id, STRIP_HEIGHT), alt: "" });
      const button = element("button", { type: "button" }, image);
      button.setAttribute("aria-label", `Not marked as ${kind} any more: ${wordsOf(hit)}`);
      button.addEventListener("click", () => mark(kind, hit));
      return element("li", {}, button);
    });
    return [element("div", { className: `strip ${kind}` }, element("h3", { textContent: title }),
      element("ul", {}, ...items), element("span", { className: "faint", textContent: words }))];
  };
  const hadFocus = $("marked").contains(document.activeElement);
  $("marked").replaceChildren(
    ...strip("right", `Right: ${search.right.size}`, "The search is for the mean of the query and these."),
    ...strip("wrong", `Wrong: ${search.wrong.size}`, "These are left out."));
  if (hadFocus) ($("marked").querySelector("button") ?? $("results")).focus();
}

function showNothing() {
  const say = (title, words) => $("nothing").replaceChildren(element("div", {},
    element("strong", { textContent: title }), element("p", { textContent: words })));
  const total = galleries?.galleries.reduce((sum, gallery) => sum + gallery.searchable, 0);
  const busy = galleries?.galleries.some((gallery) => gallery.state !== "watching");
  if (answer?.found.length) $("nothing").replaceChildren();
  else if (galleries && !total && busy) say("The pictures are being embedded", "The first ones can be searched in a moment.");
  else if (galleries && !total) say("There is no picture to search", "Put some into the gallery: they appear here by themselves.");
  else if (answer) say("No picture is left", "No camera or time that you have chosen has one. Clear the filters.");
  else if (!isActive()) {
    say("Whom are you looking for?", "Choose, drop or paste a picture of the person. The pictures that are most similar "
      + "appear here; click one to see more like it, and mark those that are right to search with them, too.");
  }
}

// ---- Details

let detailed = null;

function openDetails(hit) {
  detailed = hit;
  const gallery = galleries.galleries[hit.gallery];
  const facts = { Picture: hit.name, Gallery: gallery.place, Camera: hit.camera, Time: timeOf(hit),
    Distance: hit.distance.toFixed(6) + (hit.within === null ? "" : `, ${hit.within ? "under" : "over"} the threshold`) };
  $("large").src = pictureOf(hit.id, LARGE_HEIGHT);
  $("large").alt = `Person, ${wordsOf(hit)}`;
  $("facts").replaceChildren(...Object.entries(facts).filter(([, value]) => value).map(([name, value]) =>
    element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: value }))));
  $("details").showModal();
}

for (const role of ["like", "right", "wrong"]) {
  $(`details-${role}`).addEventListener("click", () => {
    $("details").close();
    act(role, detailed);
  });
}

// ---- The box

let boxed = null; // place of the query, and the box [x, y, w, h] in pixels of the picture, or null
const SIDES = ["x", "y", "w", "h"], LEAST = 8;

function openBox(place) {
  const query = search.queries[place];
  boxed = { place, query, box: query.box ? [...query.box] : null };
  $("whole").src = `/api/queries/${query.id}`;
  for (const side of SIDES) $(`box-${side}`).max = "xw".includes(side) ? query.width : query.height;
  const scale = Math.min((Math.min(window.innerWidth, 960) - 76) / query.width, 0.55 * window.innerHeight / query.height, 4);
  Object.assign($("whole").style, { width: `${scale * query.width}px`, height: `${scale * query.height}px` });
  showBox();
  $("boxing").showModal();
  $("stage").focus();
}

function setBox([x, y, w, h]) {
  const { width, height } = boxed.query;
  w = Math.round(Math.min(Math.max(w, LEAST), width));
  h = Math.round(Math.min(Math.max(h, LEAST), height));
  x = Math.round(Math.min(Math.max(x, 0), width - w));
  y = Math.round(Math.min(Math.max(y, 0), height - h));
  boxed.box = [x, y, w, h];
  showBox();
}

function showBox() {
  const { box, query } = boxed;
  $("box").hidden = !box;
  $("box-take").disabled = !box;
  SIDES.forEach((side, place) => {
    if (document.activeElement !== $(`box-${side}`)) $(`box-${side}`).value = box ? box[place] : "";
  });
  if (!box) return;
  const share = (value, whole) => `${100 * value / whole}%`;
  Object.assign($("box").style, { left: share(box[0], query.width), top: share(box[1], query.height),
    width: share(box[2], query.width), height: share(box[3], query.height) });
}

const middle = () => {
  const { width, height } = boxed.query, h = 0.6 * height, w = Math.min(h / 2, 0.6 * width);
  return [(width - w) / 2, (height - h) / 2, w, h];
};

function pointOf(event) {
  const seen = $("whole").getBoundingClientRect();
  return [(event.clientX - seen.left) / seen.width * boxed.query.width,
    (event.clientY - seen.top) / seen.height * boxed.query.height];
}

let corner = null;
$("stage").addEventListener("pointerdown", (event) => {
  corner = pointOf(event);
  $("stage").setPointerCapture(event.pointerId);
});
$("stage").addEventListener("pointermove", (event) => {
  if (!corner) return;
  const { width, height } = boxed.query, inside = (value, whole) => Math.min(Math.max(value, 0), whole);
  const [x, y] = pointOf(event), [left, top] = [inside(x, width), inside(y, height)];
  const [a, b] = [inside(corner[0], width), inside(corner[1], height)];
  if (Math.abs(left - a) < LEAST || Math.abs(top - b) < LEAST) return;
  setBox([Math.min(left, a), Math.min(top, b), Math.abs(left - a), Math.abs(top - b)]);
});
for (const name of ["pointerup", "pointercancel"]) $("stage").addEventListener(name, () => { corner = null; });

$("stage").addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!steps) return;
  event.preventDefault();
  const [x, y, w, h] = boxed.box ?? middle();
  const step = Math.max(1, Math.round(boxed.query.height / 100));
  const [right, down] = [steps[0] * step, steps[1] * step];
  setBox(boxed.box === null ? [x, y, w, h] : event.shiftKey ? [x, y, w + right, h + down] : [x + right, y + down, w, h]);
});
SIDES.forEach((side, place) => {
  $(`box-${side}`).addEventListener("change", () => {
    const box = (boxed.box ?? middle()).slice();
    box[place] = Number($(`box-${side}`).value) || 0;
    setBox(box);
    $(`box-${side}`).value = boxed.box[place];
  });
});

async function takeBox(box) {
  const { place, query } = boxed;
  $("boxing").close();
  await attempt(async () => {
    const made = await (await askJson(`/api/queries/${query.id}/box`, { box })).json();
    remember();
    search = { ...search, queries: search.queries.map((other, number) => (number === place ? made : other)) };
    await find();
  });
}

$("boxing").querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (boxed.box) takeBox(boxed.box);
});
$("box-whole").addEventListener("click", () => takeBox(null));
$("box-cancel").addEventListener("click", () => $("boxing").close());

// ---- Saving

async function save(kind, name) {
  await attempt(async () => {
    const content = await (await askJson(`/api/exports/${kind}`, { ...wanted(), only_right: $("only-right").checked })).blob();
    const link = element("a", { href: URL.createObjectURL(content), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
}
$("save-csv").addEventListener("click", () => save("csv", "found.csv"));
$("save-sheet").addEventListener("click", () => save("sheet", "found.png"));

// ---- Choosing, dropping, pasting; filters; keys

let adds = false; // whether the picture that is being chosen is one more of the same person
$("choose").addEventListener("click", () => { adds = false; });
$("add").addEventListener("click", () => {
  adds = true;
  $("file").click();
});
$("file").addEventListener("change", async () => {
  const files = [...$("file").files], more = adds;
  $("file").value = "";
  adds = false;
  await take(files, { more });
});
$("file").addEventListener("cancel", () => { adds = false; });
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) take(event.clipboardData.files);
});
let dragged = 0;
const draggedFiles = (event) => event.dataTransfer?.types.includes("Files");
document.addEventListener("dragenter", (event) => { if (draggedFiles(event)) $("over").hidden = ++dragged < 1; });
document.addEventListener("dragleave", (event) => { if (draggedFiles(event)) $("over").hidden = --dragged < 1; });
document.addEventListener("dragover", (event) => { if (draggedFiles(event)) event.preventDefault(); });
document.addEventListener("drop", (event) => {
  if (!draggedFiles(event)) return;
  event.preventDefault();
  dragged = 0;
  $("over").hidden = true;
  take(event.dataTransfer.files);
});
$("back").addEventListener("click", () => {
  search = earlier.pop();
  attempt(find);
});
$("ask").addEventListener("submit", (event) => event.preventDefault());
$("filters").addEventListener("change", () => attempt(find));
$("clear").addEventListener("click", () => {
  for (const input of $("filters").querySelectorAll("input")) {
    input.checked = false;
    if (input.type !== "checkbox") input.value = "";
  }
  attempt(find);
});

$("found").addEventListener("keydown", (event) => {
  const card = event.target.closest(".card");
  if (!card || event.ctrlKey || event.metaKey || event.altKey) return;
  const role = { r: "right", w: "wrong", d: "details" }[event.key.toLowerCase()];
  const cards = [...$("found").querySelectorAll(".card")], place = cards.indexOf(card);
  const rows = cards.filter((other) => other.offsetTop === card.offsetTop).length;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -rows, ArrowDown: rows }[event.key];
  if (role) act(role, card.hit);
  else if (event.key === "Home") cards[0].querySelector(".like").focus();
  else if (event.key === "End") cards.at(-1).querySelector(".like").focus();
  else if (steps) (cards[Math.min(Math.max(place + steps, 0), cards.length - 1)]).querySelector(".like").focus();
  else return;
  event.preventDefault();
});

if (window.matchMedia("(max-width: 52rem)").matches) $("filters").open = false; // the pictures come first
if (location.search) history.replaceState(null, "", "/"); // the token is a cookie by now
showQueries();
showNothing();
lookAtGalleries();
