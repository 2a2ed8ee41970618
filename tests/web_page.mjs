// Opens the page of exports/web in Chromium, gives it photos one after the other and prints what it shows, as JSON.
//
//     node web_page.mjs '{"web": FOLDER, "chromium": PATH, "profile": FOLDER, "url": URL, "photos": [PATH],
//                         "webcam": PATH of .mjpeg or null, "unreadable": PATH, "screenshot": PATH or null}'

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
  await page.addInitScript(() => {
    window.cameras = []; // every stream that the page was given
    const original = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices);
    if (!original) return;
    navigator.mediaDevices.getUserMedia = async (wish) => {
      window.cameras.push(await original(wish));
      return window.cameras.at(-1);
    };
  });
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
    const live = () =>
      page.evaluate(() => window.cameras.filter((one) => one.getTracks().some((t) => t.readyState === "live")).length);
    await page.evaluate(() => [1, 2].forEach(() => document.querySelector("#webcam").click())); // pressed twice
    await page.waitForFunction(() => window.cameras.length === 3);
    await status("faces? in|:");
    shown.push({...(await see()), cameras: await live()});
    await page.setInputFiles("#photo", options.unreadable);
    await status("not an");
    await page.waitForTimeout(500); // a picture of the webcam that is looked at now would replace the message
    shown.push({...(await see()), cameras: await live()});
    await page.click("#webcam");
    await status("faces? in|:");
    await page.evaluate(() => window.cameras.at(-1).getTracks()[0].dispatchEvent(new Event("ended"))); // pulled out
    await page.waitForTimeout(500);
    shown.push({...(await see()), cameras: await live()});
  }
  if (errors.length) throw new Error(errors.join("\n"));
} finally {
  await context.close();
}
console.log(JSON.stringify(shown));
