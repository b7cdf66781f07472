/** All that the page says, in both languages; an element names its words and they follow the language. */

const ENGLISH = {
  language: "中文",
  language_label: "切换到中文",
  greeting: "What would you like to make?",
  introduction: "Drop in a picture, a sound, a video or a 3D file, or write something. Then choose what to make of it.",
  question_label: "Your words",
  question_hint: "Write, or drop in files…",
  attach: "Add files",
  make: "Make",
  make_hint: "made in the order in which they are chosen",
  text: "Text",
  image: "Image",
  audio: "Sound",
  video: "Video",
  shape3d: "3D",
  depth: "Depth",
  settings: "Settings",
  temperature: "Temperature",
  temperature_hint: "0: always the likeliest",
  top_p: "Top-p",
  top_p_hint: "share of the likeliest that is drawn from",
  guidance: "Guidance",
  guidance_hint: "how closely what was given is followed",
  candidates: "Candidates",
  candidates_hint: "so many are made, the best is kept",
  seed: "Seed",
  seed_hint: "empty: another one each time",
  send: "Send",
  stop: "Stop",
  remove: "Remove {0}",
  download: "Download",
  model: "Model",
  questions: "Questions and answers",
  nothing_given: "From nothing",
  making: "Making…",
  took: "{0} s",
  seed_was: "seed {0}",
  length: "cut at the longest length",
  stopped: "stopped",
  empty: "the answer is empty",
  turn: "drag to turn",
  not_shown: "This browser cannot show it.",
  drop: "Drop files here",
  replaced: "{1} takes the place of {0}: one file of a kind.",
  unknown: "{0} is of no kind that this model reads: {1}.",
  unreadable: "{0} cannot be read.",
  nothing_wanted: "Choose what to make.",
  wrong_number: "{0}: give a number from {1} to {2}.",
  key_needed: "This server asks for an API key.",
  key: "API key",
  key_use: "Use it",
  unreachable: "The server cannot be reached.",
  broken_off: "The answer broke off.",
  unexpected: "The server sent a part of an unknown kind.",
  failed: "No answer",
};

const CHINESE = {
  language: "English",
  language_label: "Switch to English",
  greeting: "想生成什么？",
  introduction: "拖入图片、声音、视频或三维文件，或者写几个字，再选择要生成的内容。",
  question_label: "输入文字",
  question_hint: "输入文字，或拖入文件…",
  attach: "添加文件",
  make: "生成",
  make_hint: "按选择的先后顺序生成",
  text: "文本",
  image: "图像",
  audio: "声音",
  video: "视频",
  shape3d: "三维",
  depth: "深度",
  settings: "设置",
  temperature: "温度",
  temperature_hint: "0：总取最可能的",
  top_p: "Top-p",
  top_p_hint: "只从累计概率最高的部分中抽取",
  guidance: "引导强度",
  guidance_hint: "贴合所给内容的程度",
  candidates: "候选数",
  candidates_hint: "生成若干个，保留最好的",
  seed: "随机种子",
  seed_hint: "留空：每次不同",
  send: "发送",
  stop: "停止",
  remove: "移除 {0}",
  download: "下载",
  model: "模型",
  questions: "问与答",
  nothing_given: "无输入",
  making: "生成中…",
  took: "{0} 秒",
  seed_was: "种子 {0}",
  length: "已达最大长度",
  stopped: "已停止",
  empty: "回答为空",
  turn: "拖动可旋转",
  not_shown: "此浏览器无法显示。",
  drop: "松开即可添加文件",
  replaced: "{1} 已替换 {0}：每种只能有一个文件。",
  unknown: "{0} 不是此模型支持的文件类型：{1}。",
  unreadable: "无法读取 {0}。",
  nothing_wanted: "请选择要生成的内容。",
  wrong_number: "{0}：请填写 {1} 到 {2} 之间的数。",
  key_needed: "此服务器需要 API 密钥。",
  key: "API 密钥",
  key_use: "使用",
  unreachable: "无法连接服务器。",
  broken_off: "回答中断了。",
  unexpected: "服务器发来了未知类型的内容。",
  failed: "没有得到回答",
};

const WORDS = { en: ENGLISH, zh: CHINESE };
const KEPT = "taichu.language";

let language = localStorage.getItem(KEPT) ?? (navigator.language.startsWith("zh") ? "zh" : "en");
if (!WORDS[language]) language = "en";

/** The words of a name; `{0}`, `{1}` are the values. */
export function words(name, ...values) {
  return WORDS[language][name].replace(/\{(\d)\}/g, (_, number) => values[number]);
}

/** Let an element say words, now and after a change of language. */
export function say(element, name, ...values) {
  element.dataset.say = name;
  element.dataset.values = JSON.stringify(values);
  element.textContent = words(name, ...values);
  return element;
}

/** Likewise its label: what is read aloud, and shown where the pointer rests. */
export function label(element, name, ...values) {
  element.dataset.label = name;
  element.dataset.labelValues = JSON.stringify(values);
  element.title = words(name, ...values);
  element.setAttribute("aria-label", element.title);
  return element;
}

/** Bring every element under the document into the language. */
export function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-say]"))
    say(element, element.dataset.say, ...JSON.parse(element.dataset.values ?? "[]"));
  for (const element of document.querySelectorAll("[data-label]"))
    label(element, element.dataset.label, ...JSON.parse(element.dataset.labelValues ?? "[]"));
  for (const element of document.querySelectorAll("[data-placeholder]"))
    element.placeholder = words(element.dataset.placeholder);
}

export function switchLanguage() {
  language = language === "en" ? "zh" : "en";
  localStorage.setItem(KEPT, language);
  translate();
}
