// Opens the page of exports/web in Chromium, gives it photos one after the other and prints what it shows, as JSON.
//
//     node web_page.mjs '{"web": FOLDER, "chromium": PATH, "profile": FOLDER, "url": URL, "photos": [PATH],
//                         "webcam": PATH of .mjpeg or null, "screenshot": PATH or null}'

import {createRequire} from "node:module";

const options = JSON.parse(process.argv[2]);
const {chromium} = createRequire(`${options.web}/package.json`)("playwright-core");
const args = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"];
args.push("--disable-component-update", "--disable-sync");
if (options.webcam) {
  args.push("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream");
  args.push(`--use-file-for-fake-video-capture=${options.webcam}`);
}
const context = await chromium.launchPersistentContext(options.profile, {
  executablePath: options.chromium,
  chromiumSandbox: false,
  headless: true,
  viewport: {width: 760, height: 900},
  args,
});
const shown = [];
try {
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  await page.goto(options.url);
  const status = (pattern) =>
    page.waitForFunction((text) => new RegExp(text).test(document.querySelector("#status").value), pattern);
  await status("Ready|:");
  const see = async () => ({
    status: await page.locator("#status").innerText(),
    model: await page.locator("#model").innerText(),
    faces: (await page.locator("#faces").textContent()).split("\n").filter(Boolean).map(JSON.parse),
  });
  shown.push(await see());
  for (const photo of options.photos) {
    await page.setInputFiles("#photo", photo);
    await status("faces? in|:|not an");
    shown.push(await see());
  }
  if (options.screenshot) await page.screenshot({path: options.screenshot});
  if (options.webcam) {
    await page.click("#webcam");
    await status("faces? in|:");
    shown.push(await see());
  }
  if (errors.length) throw new Error(errors.join("\n"));
} finally {
  await context.close();
}
console.log(JSON.stringify(shown));
