"use strict"
// A team's networks, the game, and the page's buttons. Vectors are arrays of numbers.

const data = JSON.parse(document.querySelector("script[type='application/json']").textContent)

class Team {
  constructor({about, arrays}) {
    this.about = about
    this.arrays = {}
    for (const [name, {shape, bytes}] of Object.entries(arrays)) {
      const raw = Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))
      this.arrays[name] = {shape, values: new Float32Array(raw.buffer)}
    }
    this.layers = Object.keys(this.arrays).filter((name) => /^layer_\d+_weight$/.test(name)).length
  }

  initialHiddenState() {
    return this.about.agents.map(() => new Array(this.about.hidden_size).fill(0))
  }

  // Agent i's part of an array [N or 1, ...].
  part(name, i) {
    const {shape, values} = this.arrays[name]
    const size = values.length / shape[0]
    return values.subarray(shape[0] === 1 ? 0 : i * size, (shape[0] === 1 ? 1 : i + 1) * size)
  }

  linear(name, i, x) {
    const weight = this.part(name + "_weight", i), bias = this.part(name + "_bias", i)
    const y = Array.from(bias)
    x.forEach((number, k) => {
      for (let j = 0; j < y.length; j++) y[j] += number * weight[k * y.length + j]
    })
    return y
  }

  norm(k, i, x) {
    const mean = x.reduce((a, b) => a + b, 0) / x.length
    const centred = x.map((number) => number - mean)
    const deviation = Math.sqrt(centred.reduce((a, b) => a + b * b, 0) / x.length + 1e-5)
    const scale = this.part(`norm_${k}_scale`, i), shift = this.part(`norm_${k}_shift`, i)
    return centred.map((number, j) => (number / deviation) * scale[j] + shift[j])
  }

  gru(i, x, h) {
    const size = h.length, sigmoid = (number) => 1 / (1 + Math.exp(-number))
    const a = this.linear("gru_input", i, x), b = this.linear("gru_hidden", i, h)
    return h.map((before, j) => {
      const reset = sigmoid(a[j] + b[j]), update = sigmoid(a[size + j] + b[size + j])
      return (1 - update) * Math.tanh(a[2 * size + j] + reset * b[2 * size + j]) + update * before
    })
  }

  // Logits or Q-values of agent i, and its hidden state after them.
  outputs(i, observation, h) {
    let x = Array.from(observation)
    while (x.length < Math.max(...this.about.observation_sizes)) x.push(0)
    if (this.arrays.mean) {
      const mean = this.part("mean", i), std = this.part("std", i)
      x = x.map((number, k) => Math.min(10, Math.max(-10, (number - mean[k]) / std[k])))
    }
    if (this.arrays.ids) x = x.concat(Array.from(this.part("ids", i)))
    for (let k = 0; k < this.layers - 1; k++) {
      x = this.linear(`layer_${k}`, i, x)
      if (this.arrays[`norm_${k}_scale`]) x = this.norm(k, i, x)
      x = x.map((number) => (this.about.activation === "tanh" ? Math.tanh(number) : Math.max(number, 0)))
    }
    if (this.about.hidden_size) x = h = this.gru(i, x, h)
    return [this.linear(`layer_${this.layers - 1}`, i, x), h]
  }

  // The likeliest or most valued legal action of each agent, and the hidden state after them.
  act(observations, hiddenState, masks) {
    const actions = [], after = []
    observations.forEach((observation, i) => {
      const [outputs, h] = this.outputs(i, observation, hiddenState[i])
      const legal = (a) => a < this.about.action_counts[i] && (!masks || masks[i][a])
      let best = 0, most = -Infinity
      outputs.forEach((value, a) => {
        if (legal(a) && value > most) [best, most] = [a, value]
      })
      actions.push(best)
      after.push(h)
    })
    return [actions, after]
  }
}

// Games: reset and step give {state, observations, rewards, over}. ------------------------------

class Matrix {
  constructor(game) {
    Object.assign(this, game)
  }

  reset() {
    return this.shown({played: 0, previous: this.labels.map(() => null)}, this.labels.map(() => 0))
  }

  payoff(actions) {
    return actions.reduce((table, action) => table[action], this.payoffs)
  }

  step(state, actions) {
    return this.shown({played: state.played + 1, previous: actions}, this.payoff(actions))
  }

  shown(state, rewards) {
    const oneHot = this.labels.flatMap((own, i) => own.map((_, a) => Number(state.previous[i] === a)))
    const seen = this.rounds === 1 ? [1] : [...oneHot, 1]
    const over = state.played >= this.rounds
    return {state, observations: this.labels.map(() => seen), rewards, over}
  }

  limit() {
    return this.rounds
  }

  draw(state) {
    if (this.labels.length !== 2) return ""
    const cell = (a, b) => {
      const chosen = state.previous[0] === a && state.previous[1] === b
      const values = this.payoffs[a][b]
      const text = this.common ? values[0] : values.join(", ")
      return `<td${chosen ? ' class="chosen"' : ""}>${chosen ? "▸ " : ""}${text}</td>`
    }
    const head = this.labels[1].map((label) => `<th scope="col">${escaped(label)}</th>`).join("")
    const rows = this.labels[0].map((label, a) =>
      `<tr><th scope="row">${escaped(label)}</th>${this.labels[1].map((_, b) => cell(a, b)).join("")}</tr>`)
    return `<table><caption>${escaped(data.team.about.agents[0])} chooses the row, ` +
      `${escaped(data.team.about.agents[1])} the column; payoffs ` +
      `${this.common ? "of each" : "in this order"}</caption><tr><td></td>${head}</tr>${rows.join("")}</table>`
  }
}

class Foraging {
  static missing = [-1, -1, 0]
  static moves = [[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1], [0, 0]]

  constructor(game) {
    Object.assign(this, game)
  }

  reset(random = Math.random) {
    const below = (n) => Math.floor(random() * n)
    const cells = Array.from({length: this.rows * this.cols}, (_, k) => k)
    const players = Array.from({length: this.players}, () => {
      const [cell] = cells.splice(below(cells.length), 1)
      return [Math.floor(cell / this.cols), cell % this.cols, 1 + below(2)]
    })
    const weakest = Math.min(this.players, 3)
    const ones = Math.min(players.filter((p) => p[2] === 1).length, weakest)
    let highest = 2 * weakest - ones
    if (!this.coop && this.levels === "v2") highest = Math.max(highest - 1, 1)
    const foods = []
    for (let k = 0; k < this.food; k++) {
      const level = this.coop ? highest : 1 + below(highest), free = []
      for (let r = 1; r < this.rows - 1; r++) {
        for (let c = 1; c < this.cols - 1; c++) {
          const near = foods.some((f) => (f[0] - r) ** 2 + (f[1] - c) ** 2 <= 4)
          if (!near && !players.some((p) => p[0] === r && p[1] === c)) free.push([r, c, level])
        }
      }
      if (free.length) foods.push(free[below(free.length)])
    }
    foods.sort((a, b) => a[0] - b[0] || a[1] - b[1])
    const spawned = foods.reduce((sum, f) => sum + f[2], 0)
    return this.shown({foods: this.filled(foods, this.food), players, spawned, played: 0}, players.map(() => 0))
  }

  filled(rows, count) {
    return [...rows, ...Array.from({length: count - rows.length}, () => Foraging.missing)]
  }

  step(state, actions) {
    const {players, spawned} = state, foods = state.foods.filter((f) => f[2] > 0)
    const rewards = players.map(() => 0)
    const left = foods.filter(([r, c, level]) => {
      const loaders = players.flatMap((p, i) =>
        actions[i] === 5 && Math.abs(p[0] - r) + Math.abs(p[1] - c) === 1 ? [i] : [])
      const power = loaders.reduce((sum, i) => sum + players[i][2], 0)
      const eaten = power > 0 && power >= level
      for (const i of loaders) {
        rewards[i] += eaten ? (level * players[i][2]) / (power * spawned) : -this.penalty
      }
      return !eaten
    })
    const claims = players.map(([r, c], i) => {
      const [down, right] = Foraging.moves[actions[i]], y = r + down, x = c + right
      const inside = y >= 0 && y < this.rows && x >= 0 && x < this.cols
      return inside && !foods.some((f) => f[0] === y && f[1] === x) ? [y, x] : [r, c]
    })
    const moved = players.map((p, i) => {
      const rivals = claims.filter(([y, x]) => y === claims[i][0] && x === claims[i][1])
      return rivals.length === 1 ? [...claims[i], p[2]] : p
    })
    const after = {foods: this.filled(left, this.food), players: moved, spawned, played: state.played + 1}
    return this.shown(after, rewards)
  }

  shown(state, rewards) {
    const observations = state.players.map((_, i) => this.seen(state, i))
    const over = !state.foods.some((f) => f[2] > 0) || state.played >= this.time_limit
    return {state, observations, rewards, over}
  }

  // What player i sees: foods, itself, the others; of a window where sight is short.
  seen(state, i) {
    const own = state.players[i], others = state.players.filter((_, k) => k !== i)
    let foods = state.foods, players = [own, ...others]
    if (this.sight !== null && this.sight < Math.max(this.rows, this.cols) - 1) {
      const corner = [Math.max(own[0] - this.sight, 0), Math.max(own[1] - this.sight, 0)]
      const from = (e) => [e[0] - corner[0], e[1] - corner[1], e[2]]
      const near = (f) => f[2] > 0 && Math.max(Math.abs(f[0] - own[0]), Math.abs(f[1] - own[1])) <= this.sight
      const within = (p) => Math.min(p[0], p[1]) >= 0 && Math.max(p[0], p[1]) <= 2 * this.sight
      foods = this.filled(foods.filter(near).map(from), this.food)
      players = this.filled(players.map(from).filter(within), this.players)
    }
    return [...foods, ...players].flat()
  }

  limit() {
    return this.time_limit
  }

  draw(state, you, actions) {
    const parts = []
    for (let r = 0; r < this.rows; r++) {
      for (let c = 0; c < this.cols; c++) parts.push(`<rect class="cell" x="${c}" y="${r}" width="1" height="1"/>`)
    }
    const label = (r, c, text) => `<text x="${c + 0.5}" y="${r + 0.68}">${text}</text>`
    for (const [r, c, level] of state.foods.filter((f) => f[2] > 0)) {
      parts.push(`<path class="food" d="M${c + 0.5} ${r + 0.1}l.4 .4-.4 .4-.4-.4z"/>`, label(r, c, level))
    }
    state.players.forEach(([r, c, level], i) => {
      const kind = i === you ? "you" : "agent", load = actions && actions[i] === 5
      const ring = load ? `<circle class="load" cx="${c + 0.5}" cy="${r + 0.5}" r=".46"/>` : ""
      parts.push(`${ring}<circle class="${kind}" cx="${c + 0.5}" cy="${r + 0.5}" r=".38"/>`, label(r, c, level))
    })
    const found = state.players.map(([r, c, level], i) =>
      `${data.team.about.agents[i]} of level ${level} at row ${r + 1}, column ${c + 1}`).join("; ")
    return `<svg viewBox="-.05 -.05 ${this.cols + 0.1} ${this.rows + 0.1}" role="img" aria-label="${escaped(found)}">${parts.join("")}</svg>`
  }
}

// The page --------------------------------------------------------------------------------------

function escaped(text) {
  return String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`)
}

const team = new Team(data.team)
const game = data.game.kind === "matrix" ? new Matrix(data.game) : new Foraging(data.game)
const names = data.team.about.agents
const part = (id) => document.getElementById(id)
const keys = {ArrowUp: 1, ArrowDown: 2, ArrowLeft: 3, ArrowRight: 4, " ": 5, ".": 0}
let now, hidden, returns, actions, timer

function begin() {
  now = game.reset()
  hidden = team.initialHiddenState()
  returns = names.map(() => 0)
  actions = null
  show()
}

function step(choice) {
  if (now.over) return begin()
  const [chosen, after] = team.act(now.observations, hidden)
  if (you() >= 0) chosen[you()] = choice
  hidden = after
  actions = chosen
  now = game.step(now.state, chosen)
  now.rewards.forEach((reward, i) => (returns[i] += reward))
  show()
}

function you() {
  return Number(part("you").value)
}

function written(number) {
  return String(Math.round(number * 1000) / 1000).replace("-", "−")
}

function show() {
  part("board").innerHTML = game.draw(now.state, you(), actions)
  const rows = names.map((name, i) => {
    const did = actions ? data.game.labels[i][actions[i]] : ""
    const cells = [name + (i === you() ? " (you)" : ""), did, actions ? written(now.rewards[i]) : "", written(returns[i])]
    return `<tr>${cells.map((cell) => `<td>${escaped(cell)}</td>`).join("")}</tr>`
  })
  part("agents").innerHTML = rows.join("")
  const total = written(returns.reduce((a, b) => a + b, 0))
  part("status").textContent = `Step ${now.state.played} of at most ${game.limit()}. Sum of returns: ${total}.` +
    (now.over ? " The episode is over." : "")
  const own = you() >= 0
  part("choices").innerHTML = now.over ? "" : (own ? data.game.labels[you()] : ["Next step"])
    .map((label, a) => `<button data-action="${a}">${escaped(label)}</button>`).join("")
  part("again").textContent = now.over ? "New episode" : "Begin anew"
  part("run").hidden = own || now.over
}

function stop() {
  clearInterval(timer)
  timer = undefined
  part("run").textContent = "Play"
}

part("you").innerHTML = `<option value="-1">nobody: watch</option>` +
  names.map((name, i) => `<option value="${i}"${i === 0 ? " selected" : ""}>${escaped(name)}</option>`).join("")
part("you").addEventListener("change", () => {
  stop()
  begin()
})
part("again").addEventListener("click", () => {
  stop()
  begin()
})
part("choices").addEventListener("click", (event) => {
  const action = event.target.dataset.action
  if (action === undefined) return
  step(Number(action))
  part("choices").querySelector(`[data-action="${action}"]`)?.focus()
})
part("run").addEventListener("click", () => {
  if (timer) return stop()
  part("run").textContent = "Pause"
  timer = setInterval(() => (now.over ? stop() : step()), 400)
})
document.addEventListener("keydown", (event) => {
  const action = keys[event.key]
  const busy = event.target.closest("select, button")
  if (data.game.kind !== "foraging" || you() < 0 || now.over || action === undefined) return
  if (busy && (event.key === " " || busy.tagName === "SELECT")) return
  event.preventDefault()
  step(action)
})
begin()
