/** Files and the parts of a message: a file as a part of a question, a part of an answer as a file. */

const TYPES = {
  ".png": "image/png",
  ".jpg": "image/jpeg",
  ".jpeg": "image/jpeg",
  ".webp": "image/webp",
  ".bmp": "image/bmp",
  ".tif": "image/tiff",
  ".tiff": "image/tiff",
  ".wav": "audio/wav",
  ".flac": "audio/flac",
  ".ogg": "audio/ogg",
  ".mp3": "audio/mpeg",
  ".mp4": "video/mp4",
  ".avi": "video/x-msvideo",
  ".webm": "video/webm",
  ".gif": "image/gif",
  ".obj": "model/obj",
  ".stl": "model/stl",
  ".ply": "model/ply",
  ".glb": "model/gltf-binary",
  ".off": "model/off",
};
const FORMS = {
  image: "image_url",
  audio: "audio_url",
  video: "video_url",
  shape3d: "shape3d_url",
  depth: "depth_url",
};
// what an answer may hold of each modality; svg is not among it, which may hold programs
const EXPECTED = {
  image: ["image/png", "image/jpeg", "image/webp", "image/gif"],
  audio: ["audio/wav", "audio/x-wav", "audio/ogg", "audio/mpeg", "audio/flac"],
  video: ["video/mp4", "video/webm", "image/gif"],
  shape3d: ["model/gltf-binary"],
  depth: ["image/png"],
};

export const suffixOf = (name) => (name.match(/\.[^./\\]+$/)?.[0] ?? "").toLowerCase();

/**
 * The modality of a file by its suffix, of a picture by its bits too; undefined where the model reads
 * no such file.
 */
export async function modalityOf(file, suffixes) {
  const fitting = Object.keys(suffixes).filter((name) => suffixes[name].includes(suffixOf(file.name)));
  if (fitting.length > 1 && fitting.includes("depth"))
    return (await isDepthMap(file)) ? "depth" : fitting.find((name) => name !== "depth");
  return fitting[0];
}

/** Whether a file is a png of one channel of 16 bits. */
async function isDepthMap(file) {
  const [bits, colours] = new Uint8Array(await file.slice(24, 26).arrayBuffer());
  return suffixOf(file.name) === ".png" && bits === 16 && colours === 0;
}

/** A file as a part of a question. Throws where it cannot be read. */
export async function toPart(modality, file) {
  const suffix = suffixOf(file.name);
  const data = (await readDataUrl(file)).replace(/^[^,]*,/, "");
  if (modality === "audio")
    return { type: "input_audio", input_audio: { data, format: suffix.slice(1) } };
  const form = FORMS[modality];
  return { type: form, [form]: { url: `data:${TYPES[suffix]};base64,${data}` } };
}

/**
 * A part of an answer as {modality, file}, or {modality, error} where it could not be made; undefined
 * where it is not of a kind that is expected.
 */
export function fromPart(part) {
  const modality = Object.keys(FORMS).find((name) => FORMS[name] === part.type);
  if (modality && part.error) return { modality, error: part.error.message };
  const url = modality && part[part.type]?.url;
  const type = EXPECTED[modality]?.find((known) => url?.startsWith?.(`data:${known};base64,`));
  if (!type) return undefined;
  let bytes;
  try {
    bytes = Uint8Array.from(atob(url.slice(url.indexOf(",") + 1)), (c) => c.charCodeAt(0));
  } catch {
    return undefined; // no base64
  }
  const suffix = Object.keys(TYPES).find((name) => TYPES[name] === type) ?? ".wav";
  return { modality, file: new File([bytes], `${modality}${suffix}`, { type }) };
}

/** A file with the type that its suffix says: the system's guess may be another. */
export const typed = (file) => new Blob([file], { type: TYPES[suffixOf(file.name)] });

function readDataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
