// What is on screen as a file: PNG and SVG of now, GIF of the whole way. The GIF encoder is the format's own 1989
// compression (LZW) over the 256 commonest colours.
import { make } from "./elements.js";

export function download(name, blob) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// All sides beside each other, each a square of `side` pixels under its name.
function sheet(views, names, side) {
  const all = make("canvas", { width: side * views.length, height: side + 24 }), ink = all.getContext("2d", { willReadFrequently: true });
  const { ground, particle } = views[0].colours();
  ink.fillStyle = ground;
  ink.fillRect(0, 0, all.width, all.height);
  ink.fillStyle = particle;
  ink.font = "14px sans-serif";
  views.forEach((view, i) => {
    ink.drawImage(view.canvas, i * side, 24, side, side);
    ink.fillText(names[i], i * side + 8, 17, side - 16);
  });
  return all;
}

export const png = (views, names) => new Promise((done) => sheet(views, names, views[0].canvas.width).toBlob(done, "image/png"));

// The whole way of `last` steps; seek(part, k) shows step k.
export async function film(views, names, last, seek) {
  const frames = [], many = Math.min(48, last);
  for (let i = 0; i <= many; i++) {
    await seek(i / many, Math.round((i / many) * last));
    const all = sheet(views, names, 320);
    frames.push(all.getContext("2d").getImageData(0, 0, all.width, all.height));
  }
  return gif(frames);
}

// The particles of all sides as circles, in the same places.
export function svg(views, names) {
  const side = 600, colours = views[0].colours(), escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  const parts = views.map((view, v) => {
    const { x } = view.frame, scale = side / view.canvas.width, dots = [];
    for (let i = 0; i < x.length / 2; i++) {
      const [a, b] = view.toPixel(x[2 * i], x[2 * i + 1]), [px, py] = [a * scale, b * scale];
      if (px >= 0 && px <= side && py >= 0 && py <= side) dots.push(`<circle cx="${px.toFixed(1)}" cy="${py.toFixed(1)}" r="1.3"/>`);
    }
    return `<g transform="translate(${v * side} 30)"><text x="8" y="-9" font-family="sans-serif" font-size="16">${escaped(names[v])}</text>${dots.join("")}</g>`;
  });
  const box = `width="${side * views.length}" height="${side + 30}"`;
  return new Blob([
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${side * views.length} ${side + 30}" ${box}><rect ${box} fill="${colours.ground}"/><g fill="${colours.particle}">${parts.join("")}</g></svg>`,
  ], { type: "image/svg+xml" });
}

// The commonest colours of all frames, at five bits a channel, and for every such colour the nearest of them.
function palette(frames) {
  const counts = new Uint32Array(32768);
  for (const { data } of frames) for (let p = 0; p < data.length; p += 4) counts[coarse(data, p)] += 1;
  const used = [...counts.keys()].filter((c) => counts[c]).sort((a, b) => counts[b] - counts[a]), kept = used.slice(0, 256);
  const channels = (c) => [c >> 10, (c >> 5) & 31, c & 31], rgb = kept.map(channels), nearest = new Uint8Array(32768);
  for (const c of used) {
    const [r, g, b] = channels(c), far = rgb.map(([x, y, z]) => (x - r) ** 2 + (y - g) ** 2 + (z - b) ** 2);
    nearest[c] = far.indexOf(Math.min(...far));
  }
  return { colours: rgb.flatMap((c) => c.map((v) => Math.round((v * 255) / 31))), nearest };
}

const coarse = (data, p) => ((data[p] >> 3) << 10) | ((data[p + 1] >> 3) << 5) | (data[p + 2] >> 3);

// frames: ImageData of equal size; delay in hundredths of a second
export function gif(frames, delay = 5) {
  const { width, height } = frames[0], { colours, nearest } = palette(frames), out = [];
  const short = (v) => out.push(v & 255, (v >> 8) & 255);
  out.push(...[..."GIF89a"].map((c) => c.charCodeAt(0)));
  short(width);
  short(height);
  out.push(0xf7, 0, 0, ...colours, ...new Array(768 - colours.length).fill(0)); // a global palette of 2^8 colours
  out.push(0x21, 0xff, 11, ...[..."NETSCAPE2.0"].map((c) => c.charCodeAt(0)), 3, 1, 0, 0, 0);
  for (const [i, { data }] of frames.entries()) {
    out.push(0x21, 0xf9, 4, 0);
    short(i === frames.length - 1 ? 150 : delay);
    out.push(0, 0, 0x2c);
    for (const v of [0, 0, width, height]) short(v);
    out.push(0, 8);
    const packed = lzw(Uint8Array.from({ length: width * height }, (_, p) => nearest[coarse(data, 4 * p)]), 8);
    for (let p = 0; p < packed.length; p += 255) {
      const part = packed.slice(p, p + 255);
      out.push(part.length, ...part);
    }
    out.push(0);
  }
  out.push(0x3b);
  return new Blob([Uint8Array.from(out)], { type: "image/gif" });
}

function lzw(pixels, bits) {
  const clear = 1 << bits, end = clear + 1, bytes = [];
  let size = bits + 1, next = end + 1, table = new Map(), held = 0, count = 0;
  const emit = (code) => {
    held |= code << count;
    count += size;
    while (count >= 8) { bytes.push(held & 255); held >>>= 8; count -= 8; }
  };
  emit(clear);
  let prefix = pixels[0];
  for (let p = 1; p < pixels.length; p++) {
    const key = (prefix << 8) | pixels[p], known = table.get(key);
    if (known !== undefined) { prefix = known; continue; }
    emit(prefix);
    prefix = pixels[p];
    if (next === 4096) {
      emit(clear);
      table = new Map();
      size = bits + 1;
      next = end + 1;
    } else {
      table.set(key, next);
      if (next === 1 << size) size += 1;
      next += 1;
    }
  }
  emit(prefix);
  emit(end);
  if (count > 0) bytes.push(held & 255);
  return bytes;
}
