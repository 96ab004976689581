// Runs once for each gr.HTML; what is inside may be drawn anew at any time,
// so that all listening is done at `element`.

const playerOf = (node) => node.closest(".esr-hit, .esr-spot");

const show = (player, seconds) => {
  const box = player.querySelector(".esr-player");
  const cursor = player.querySelector(".esr-cursor");
  if (!box || !cursor) return;
  const { lead, total } = box.dataset;
  const offset = player.dataset.around ? 0 : Number(lead);
  cursor.style.left = `${(100 * (offset + seconds)) / Number(total)}%`;
  cursor.style.opacity = 1;
};

const play = (player, around, at) => {
  const audio = player.querySelector("audio");
  const wanted = around ? audio.dataset.context : audio.dataset.plain;
  if (around) player.dataset.around = "1";
  else delete player.dataset.around;
  if (audio.getAttribute("src") !== wanted) audio.setAttribute("src", wanted);
  if (at !== undefined) audio.currentTime = at;
  document.querySelectorAll("audio").forEach((other) => {
    if (other !== audio) other.pause();
  });
  // What cannot be played is reported by the "error" event.
  audio.play().catch(() => {});
};

const seek = (player, event) => {
  const picture = player.querySelector(".esr-picture");
  const { lead, duration, total } = player.querySelector(".esr-player").dataset;
  const box = picture.getBoundingClientRect();
  const at = ((event.clientX - box.left) / box.width) * Number(total);
  const inside = at - Number(lead);
  if (inside >= 0 && inside < Number(duration)) play(player, false, inside);
  else play(player, true, at);
};

const spot = (dot) => {
  const panel = element.querySelector(".esr-spot");
  const token = panel.dataset.token;
  const rank = dot.dataset.rank;
  panel.querySelector(".esr-caption").textContent = dot.textContent;
  const more = panel.querySelector(".esr-more");
  more.dataset.token = token;
  more.dataset.rank = rank;
  panel.classList.add("esr-chosen");
  element
    .querySelectorAll(".esr-picked")
    .forEach((other) => other.classList.remove("esr-picked"));
  dot.classList.add("esr-picked");
  const audio = panel.querySelector("audio");
  audio.dataset.plain = `esr/clips/${token}/${rank}`;
  play(panel, false);
};

element.addEventListener("click", (event) => {
  const target = event.target;
  if (target.matches(".esr-map circle[data-rank]")) return spot(target);
  if (target.matches(".esr-more")) {
    const { token, rank } = target.dataset;
    return trigger("select", { token, rank: Number(rank) });
  }
  if (target.matches(".esr-clear")) return trigger("clear", {});
  const player = playerOf(target);
  if (!player) return;
  if (target.matches(".esr-play")) {
    const audio = player.querySelector("audio");
    if (audio.paused) play(player, false);
    else audio.pause();
  } else if (target.matches(".esr-around")) play(player, true, 0);
  else if (target.closest(".esr-picture")) seek(player, event);
});

element.addEventListener("mouseover", (event) => {
  const panel = element.querySelector(".esr-spot");
  if (!panel || !event.target.matches(".esr-map circle[data-rank]")) return;
  if (!panel.classList.contains("esr-chosen"))
    panel.querySelector(".esr-caption").textContent = event.target.textContent;
});

// Events of media do not bubble; they are caught on their way down.
for (const name of ["play", "pause", "ended", "timeupdate"])
  element.addEventListener(
    name,
    ({ target }) => {
      const player = playerOf(target);
      if (!player) return;
      player.classList.toggle("esr-playing", !target.paused && !target.ended);
      show(player, target.currentTime);
    },
    true,
  );

element.addEventListener(
  "error",
  ({ target }) => {
    const player = playerOf(target);
    if (!player || player.querySelector(".esr-broken")) return;
    const note = document.createElement("div");
    note.className = "esr-note esr-broken";
    note.textContent = "The recording is gone or cannot be read.";
    player.append(note);
  },
  true,
);

element.addEventListener("change", async ({ target }) => {
  if (!target.matches(".esr-upload input") || !target.files.length) return;
  const file = target.files[0];
  const most = Number(target.dataset.most);
  if (file.size > most) {
    trigger("select", { problem: "size" });
  } else {
    try {
      const reply = await fetch("esr/uploads", { method: "POST", body: file });
      const { token, problem } = await reply.json();
      trigger("select", { upload: token, name: file.name, problem });
    } catch {
      trigger("select", { problem: "lost" });
    }
  }
  target.value = "";
});
