// Faces in photos, in the browser: a .tflite of `retinaface-tf export tflite`, run by LiteRT.js. docs/browser.md.

import {loadAndCompile, loadLiteRt, Tensor} from "@litertjs/core";

const MODEL = new URLSearchParams(location.search).get("model") ?? "faces.tflite";
const WASM = new URL("node_modules/@litertjs/core/wasm/", import.meta.url).href;
const MOST_THREADS = 4; // more bring little on images of these sizes

class FaceDetector {
  static async load(url) {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}. README.md shows how to export a file`);
    const bytes = new Uint8Array(await response.arrayBuffer());
    const metadata = readMetadata(bytes, url);
    // Threads share memory, which a browser grants only to pages that come with the two headers of serve.py.
    await loadLiteRt(WASM, {threads: crossOriginIsolated});
    const threads = crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;
    const model = await loadAndCompile(bytes, {accelerator: "wasm", cpuOptions: {numThreads: threads}});
    return new FaceDetector(model, metadata, threads);
  }

  constructor(model, metadata, threads) {
    Object.assign(this, {model, metadata, threads});
    const [height, width] = metadata.input.size;
    Object.assign(this, {height, width, pixels: new Uint8Array(height * width * 3)});
    this.context = document.createElement("canvas").getContext("2d", {willReadFrequently: true}); // not on the GPU
  }

  // Faces of an image, a video or a canvas of width x height pixels: {faces, milliseconds, full}, the time that of the
  // model; full if there was no room for more faces.
  async detect(source, width, height, scoreThreshold) {
    const {scale, window} = this.letterbox(source, width, height);
    const inputs = {
      images: new Tensor(this.pixels, [1, this.height, this.width, 3]),
      windows: new Tensor(new Float32Array(window), [1, 4]),
      score_threshold: new Tensor(new Float32Array([scoreThreshold]), []),
      nms_threshold: new Tensor(new Float32Array([this.metadata.nms_threshold]), []),
    };
    const room = this.metadata.max_detections;
    const start = performance.now();
    const outputs = await this.model.run("detect", inputs);
    const milliseconds = performance.now() - start;
    const values = {};
    for (const [name, tensor] of Object.entries(outputs)) values[name] = await tensor.data();
    for (const tensor of [...Object.values(inputs), ...Object.values(outputs)]) tensor.delete();

    const restore = (points) => Array.from(points, (value, i) => value / scale[i % 2]);
    const faces = Array.from({length: values.count[0]}, (_, i) => ({
      score: values.scores[i],
      box: restore(values.boxes.subarray(4 * i, 4 * i + 4)),
      landmarks: restore(values.landmarks.subarray(10 * i, 10 * i + 10)),
    }));
    return {faces, milliseconds, full: faces.length >= room};
  }

  // Puts the photo into the upper left corner of the model's pixels: shrunk if it is too large, never enlarged, the mean
  // color beside it, white under transparency. As retinaface_tf/image/letterbox.py does.
  letterbox(source, width, height) {
    const {context, pixels} = this;
    const factor = Math.min(1, this.height / height, this.width / width);
    const newWidth = Math.max(1, Math.round(width * factor));
    const newHeight = Math.max(1, Math.round(height * factor));
    Object.assign(context.canvas, {width, height});
    context.fillStyle = "white";
    context.fillRect(0, 0, width, height);
    context.drawImage(source, 0, 0);
    let rgba = context.getImageData(0, 0, width, height).data;
    if (newWidth < width) rgba = shrink(rgba, height, width, newWidth, true);
    if (newHeight < height) rgba = shrink(rgba, newWidth, height, newHeight, false);
    for (let i = 0; i < pixels.length; i++) pixels[i] = this.metadata.fill[i % 3];
    for (let y = 0, from = 0; y < newHeight; y++, from = 4 * y * newWidth) {
      for (let to = 3 * y * this.width, end = to + 3 * newWidth; to < end; from += 4, to += 3) {
        for (let channel = 0; channel < 3; channel++) pixels[to + channel] = rgba[from + channel];
      }
    }
    return {scale: [newWidth / width, newHeight / height], window: [0, 0, newWidth, newHeight]};
  }
}

// RGBA pixels with each row, or each column, shrunk to a new length by a triangle of weights as Pillow's BILINEAR does.
// drawImage shrinks in a way of its own in each browser, which moved the boxes of small faces by pixels.
function shrink(rgba, lines, length, newLength, rows) {
  const result = new Uint8ClampedArray(4 * lines * newLength); // which rounds
  const [step, line, newLine] = rows ? [4, 4 * length, 4 * newLength] : [4 * lines, 4, 4];
  const scale = length / newLength;
  for (let i = 0; i < newLength; i++) {
    const center = (i + 0.5) * scale;
    const first = Math.max(0, Math.floor(center - scale + 0.5));
    const last = Math.min(length, Math.floor(center + scale + 0.5));
    const weights = Array.from({length: last - first}, (_, k) => 1 - Math.abs(first + k + 0.5 - center) / scale);
    const sum = weights.reduce((total, weight) => total + weight);
    for (let j = 0; j < lines; j++) {
      let [red, green, blue] = [0, 0, 0];
      for (let k = first, at = j * line + first * step; k < last; k++, at += step) {
        red += weights[k - first] * rgba[at];
        green += weights[k - first] * rgba[at + 1];
        blue += weights[k - first] * rgba[at + 2];
      }
      const to = j * newLine + i * step;
      [result[to], result[to + 1], result[to + 2]] = [red / sum, green / sum, blue / sum];
    }
  }
  return result;
}

// The JSON text that the artifact carries: a file, not compressed, of the zip archive behind the model.
function readMetadata(bytes, url) {
  const view = new DataView(bytes.buffer);
  const text = (start, length) => new TextDecoder().decode(bytes.subarray(start, start + length));
  const end = bytes.length - 22; // the archive's last record, which has no comment
  if (end >= 0 && view.getUint32(end, true) === 0x06054b50) {
    let entry = view.getUint32(end + 16, true);
    for (let left = view.getUint16(end + 10, true); left > 0; left--) {
      const [size, name, extra, comment] = [view.getUint32(entry + 20, true), 28, 30, 32].map((at, i) =>
        i ? view.getUint16(entry + at, true) : at,
      );
      if (text(entry + 46, name) === "retinaface.json") {
        const local = view.getUint32(entry + 42, true);
        return JSON.parse(text(local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true), size));
      }
      entry += 46 + name + extra + comment;
    }
  }
  throw new Error(`${url}: not a file of retinaface-tf export tflite`);
}

// The page.

const element = (id) => document.getElementById(id);
const say = (text) => (element("status").textContent = text);
let detector;
let shown; // photo or video: what is looked at again when the score changes; nothing while another is awaited
let choice = 0; // how often something was chosen: what arrives for an earlier choice is dropped
let looking = Promise.resolve(); // the model looks at one image after the other: its pixels are used again

function look() {
  looking = looking.then(lookNow).catch((error) => say(error.message));
  return looking;
}

async function lookNow() {
  const source = shown;
  if (!source) return;
  const width = source.videoWidth ?? source.width;
  const height = source.videoHeight ?? source.height;
  const score = element("score").valueAsNumber || detector.metadata.score_threshold; // an empty field is no number
  const {faces, milliseconds, full} = await detector.detect(source, width, height, score);
  if (source !== shown) return; // another was chosen meanwhile
  draw(source, width, height, faces);
  const more = full ? "; there may be more, because the model returns at most this number" : "";
  say(`${faces.length} ${faces.length === 1 ? "face" : "faces"} in ${milliseconds.toFixed(0)} ms${more}`);
  element("faces").textContent = faces.map((face) => JSON.stringify(face, rounded)).join("\n");
}

const rounded = (_, value) => (typeof value === "number" ? Math.round(value * 1e4) / 1e4 : value);

function draw(source, width, height, faces) {
  const view = element("view");
  Object.assign(view, {width, height});
  const context = view.getContext("2d");
  context.drawImage(source, 0, 0);
  for (const {score, box, landmarks} of faces) {
    const [left, top, right, bottom] = box;
    const size = Math.sqrt((right - left) * (bottom - top)); // lines, dots and letters in proportion to the face
    context.lineWidth = Math.max(1, size / 40);
    const letters = Math.max(9, size / 8);
    context.font = `${letters}px system-ui, sans-serif`;
    context.strokeStyle = context.fillStyle = "#00c878";
    context.strokeRect(left, top, right - left, bottom - top);
    context.fillText(score.toFixed(2), left, Math.max(top - context.lineWidth, letters));
    context.fillStyle = "#ffd23f";
    for (let i = 0; i < landmarks.length; i += 2) {
      context.beginPath();
      context.arc(landmarks[i], landmarks[i + 1], Math.max(1, size / 30), 0, 2 * Math.PI);
      context.fill();
    }
  }
}

async function showPhoto(file) {
  const mine = choose();
  let photo;
  try {
    photo = await createImageBitmap(file); // with the orientation of its EXIF data
  } catch {
    if (mine === choice) say(`${file.name}: not an image that this browser can read`);
    return;
  }
  if (mine !== choice) return;
  shown = photo;
  await look();
}

async function startWebcam() {
  const mine = choose();
  if (!navigator.mediaDevices?.getUserMedia) {
    return say("No webcam: browsers give it to pages from https or from this machine (http://127.0.0.1) only");
  }
  const video = Object.assign(document.createElement("video"), {muted: true, playsInline: true});
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({video: {facingMode: "user"}});
    if (mine === choice) await video.play();
  } catch (error) {
    stop(video);
    if (mine === choice) say(`No webcam: ${error.message}`);
    return;
  }
  if (mine !== choice) return stop(video); // something else was chosen before the camera was on
  shown = video;
  for (const track of video.srcObject.getTracks()) {
    track.onended = () => shown === video && (choose(), say("The webcam has stopped")); // pulled out, or taken back
  }
  const next = async () => {
    if (shown !== video) return;
    await look();
    requestAnimationFrame(next);
  };
  await next();
}

// Ends what is shown, the camera too: the number of the new choice.
function choose() {
  stop(shown);
  shown = undefined;
  say("Looking …");
  element("faces").textContent = "";
  Object.assign(element("view"), {width: 0, height: 0});
  return ++choice;
}

const stop = (source) => source?.srcObject?.getTracks().forEach((track) => track.stop());

function listen() {
  element("photo").onchange = ({target}) => target.files.length && showPhoto(target.files[0]);
  element("photo").onclick = ({target}) => (target.value = ""); // so that the same photo may be chosen again
  element("webcam").onclick = startWebcam;
  element("score").onchange = look;
  document.ondragover = (event) => (event.preventDefault(), document.body.classList.add("over"));
  document.ondragleave = () => document.body.classList.remove("over");
  document.ondrop = (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    if (event.dataTransfer.files.length) showPhoto(event.dataTransfer.files[0]);
  };
}

try {
  detector = await FaceDetector.load(MODEL);
  const {metadata, threads, width, height} = detector;
  await detector.detect(document.createElement("canvas"), width, height, 1); // the first run is slow
  element("score").value = metadata.score_threshold;
  element("model").textContent =
    `${MODEL}: ${metadata.preset ?? "own model"}, ${width} x ${height} pixels, ` +
    `${metadata.quantization?.scheme ?? "fp32"}, ${threads} ${threads === 1 ? "thread" : "threads"}`;
  for (const id of ["photo", "webcam", "score"]) element(id).disabled = false;
  listen();
  say("Ready.");
} catch (error) {
  say(error.message);
}
