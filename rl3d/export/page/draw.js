// Draws splats and triangle meshes with WebGL 2. Conventions are those of rl3d: z is up, cameras are OpenCV's (x right, y down,
// z forward), colours are sRGB that blend as they are, premultiplied by alpha.

const ROW = 2048; // texels in a row of a splat table; every WebGL 2 has textures as wide
const EPS2D = 0.3; // variance in pixels squared that widens every Gaussian on the screen, as in rl3d.render.gaussians

const SPLAT_VERTEX = `#version 300 es
precision highp float;
precision highp usampler2D;
uniform usampler2D shapes;   // three texels of a splat: centre and opacity, quaternion wxyz, logarithms of the scales
uniform usampler2D colours;  // its harmonics, a texel for each coefficient
uniform vec4 shapeLow[3], shapeStep[3];
uniform vec3 colourLow[16], colourStep[16];
uniform int coefficients;
uniform mat4 view;
uniform vec3 eye;
uniform vec2 size;           // of the canvas, in pixels
uniform float focal;         // in pixels
in uint splat;
out vec2 offset;             // from the centre, in pixels, y down
flat out vec3 conic;
flat out vec4 paint;         // colour and opacity

vec4 shape(int i) {
  int at = int(splat) * 3 + i;
  return shapeLow[i] + shapeStep[i] * vec4(texelFetch(shapes, ivec2(at % ${ROW}, at / ${ROW}), 0));
}

vec3 harmonic(int i) {
  int at = int(splat) * coefficients + i;
  return colourLow[i] + colourStep[i] * vec3(texelFetch(colours, ivec2(at % ${ROW}, at / ${ROW}), 0).rgb);
}

// Real spherical harmonics with the signs of 3DGS files.
vec3 seenFrom(vec3 d) {
  float x = d.x, y = d.y, z = d.z;
  vec3 c = 0.28209479177387814 * harmonic(0);
  if (coefficients > 1) c += 0.4886025119029199 * (z * harmonic(2) - y * harmonic(1) - x * harmonic(3));
  if (coefficients > 4) {
    c += 1.0925484305920792 * (x * y * harmonic(4) - y * z * harmonic(5) - x * z * harmonic(7));
    c += 0.31539156525252005 * (2.0 * z * z - x * x - y * y) * harmonic(6) + 0.5462742152960396 * (x * x - y * y) * harmonic(8);
  }
  if (coefficients > 9) {
    c += -0.5900435899266435 * y * (3.0 * x * x - y * y) * harmonic(9) + 2.890611442640554 * x * y * z * harmonic(10);
    c += -0.4570457994644658 * (4.0 * z * z - x * x - y * y) * (y * harmonic(11) + x * harmonic(13));
    c += 0.3731763325901154 * z * (2.0 * z * z - 3.0 * x * x - 3.0 * y * y) * harmonic(12);
    c += 1.445305721320277 * z * (x * x - y * y) * harmonic(14) - 0.5900435899266435 * x * (x * x - 3.0 * y * y) * harmonic(15);
  }
  return max(0.5 + c, 0.0);
}

mat3 rotation(vec4 q) {
  float w = q.x, x = q.y, y = q.z, z = q.w;
  return mat3(1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y),
              2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x),
              2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y));
}

void main() {
  vec4 place = shape(0);
  vec3 at = (view * vec4(place.xyz, 1.0)).xyz, scale = exp(shape(2).xyz);
  gl_Position = vec4(2.0, 2.0, 2.0, 1.0); // outside, unless it is seen
  if (at.z < 0.01 || place.w * 255.0 <= 1.0) return;

  // The local affine approximation of the camera (Zwicker et al. 2002, "EWA Splatting"), within the frustum widened by 0.3.
  vec2 limit = 0.65 * size / focal, slope = clamp(at.xy / at.z, -limit, limit);
  mat3 turn = rotation(normalize(shape(1)));
  mat3 rows = transpose(mat3(view) * mat3(turn[0] * scale.x, turn[1] * scale.y, turn[2] * scale.z));
  vec3 a = focal / at.z * (rows[0] - slope.x * rows[2]), b = focal / at.z * (rows[1] - slope.y * rows[2]), n = cross(a, b);
  float det = dot(n, n) + ${EPS2D} * (dot(a, a) + dot(b, b)) + ${EPS2D} * ${EPS2D};
  vec2 variance = vec2(dot(a, a), dot(b, b)) + ${EPS2D};
  conic = vec3(variance.y, -dot(a, b), variance.x) / det;
  paint = vec4(seenFrom(normalize(place.xyz - eye)), place.w);

  // A box as large as what covers a pixel by 1/255 or more.
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 2.0 - 1.0;
  offset = corner * ceil(sqrt(2.0 * log(place.w * 255.0) * variance));
  gl_Position = vec4((focal * at.xy / at.z + offset) * vec2(2.0, -2.0) / size, 0.0, 1.0);
}`;

const SPLAT_FRAGMENT = `#version 300 es
precision highp float;
in vec2 offset;
flat in vec3 conic;
flat in vec4 paint;
out vec4 pixel;
void main() {
  vec2 d = offset;
  float alpha = paint.a * exp(-0.5 * (conic.x * d.x * d.x + conic.z * d.y * d.y) - conic.y * d.x * d.y);
  if (alpha < 1.0 / 255.0) discard;
  alpha = min(alpha, 0.999);
  pixel = vec4(paint.rgb * alpha, alpha);
}`;

const MESH_VERTEX = `#version 300 es
precision highp float;
uniform vec3 low, span;      // positions come in [0, 1]
uniform vec2 uvLow, uvSpan;
uniform mat4 view;
uniform vec2 size;
uniform float focal;
in vec3 position;
in vec2 uv;
in vec3 colour;
out vec3 at;                 // in the camera's axes
out vec2 place;
out vec3 paint;
void main() {
  at = (view * vec4(low + span * position, 1.0)).xyz;
  place = uvLow + uvSpan * uv;
  paint = colour;
  float near = 0.01, far = 100.0;
  gl_Position = vec4(2.0 * focal * at.xy * vec2(1.0, -1.0) / size, (at.z * (far + near) - 2.0 * far * near) / (far - near), at.z);
}`;

const MESH_FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D image;
uniform bool textured, clay;
in vec3 at;
in vec2 place;
in vec3 paint;
out vec4 pixel;
void main() {
  // A texture's first row is its top, where v is 1.
  vec3 colour = textured ? texture(image, vec2(place.x, 1.0 - place.y)).rgb : paint;
  if (clay) {
    vec3 normal = normalize(cross(dFdx(at), dFdy(at)));
    normal *= -sign(dot(normal, at));
    vec3 key = normalize(vec3(-0.5, -0.8, -0.9)), fill = normalize(vec3(0.9, 0.2, -0.5));
    colour = vec3(0.93, 0.90, 0.86) * (0.30 + 0.60 * max(dot(normal, key), 0.0) + 0.18 * max(dot(normal, fill), 0.0));
  }
  pixel = vec4(colour, 1.0);
}`;

function program(gl, vertex, fragment, attributes) {
  const made = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
  }
  attributes.forEach((name, i) => gl.bindAttribLocation(made, i, name));
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
  return { program: made, at: (name) => gl.getUniformLocation(made, name) };
}

function tableTexture(gl, data, channels, internal, format, type) {
  const rows = Math.max(1, Math.ceil(data.length / channels / ROW));
  const full = new data.constructor(rows * ROW * channels);
  full.set(data);
  const texture = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  gl.texImage2D(gl.TEXTURE_2D, 0, internal, ROW, rows, 0, format, type, full);
  for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, side, gl.NEAREST);
  return texture;
}

// Numbers of the Gaussians from the furthest to the nearest along a direction: a counting sort, linear in their number.
function backToFront(data, step, along, order) {
  const n = order.length, depth = new Float32Array(n), [x, y, z] = along.map((d, i) => d * step[i]);
  let low = Infinity, high = -Infinity;
  for (let i = 0; i < n; i++) {
    const d = (depth[i] = x * data[12 * i] + y * data[12 * i + 1] + z * data[12 * i + 2]);
    if (d < low) low = d;
    if (d > high) high = d;
  }
  const buckets = 65536, scale = (buckets - 1) / Math.max(high - low, 1e-12);
  const key = new Uint16Array(n), start = new Uint32Array(buckets + 1);
  for (let i = 0; i < n; i++) {
    key[i] = (high - depth[i]) * scale; // cut to an integer by the array
    start[key[i] + 1]++;
  }
  for (let i = 0; i < buckets; i++) start[i + 1] += start[i];
  for (let i = 0; i < n; i++) order[start[key[i]]++] = i;
}

// Makes what draws on a canvas: `splats(data)` and `mesh(data)` each give a function of a camera, `clear()` empties the canvas.
// A camera is {view: 16 numbers column by column, eye, along: the direction it looks in, focal, width, height}.
function makePainter(canvas) {
  const gl = canvas.getContext("webgl2", { antialias: true });
  if (!gl) return null;
  const forSplats = program(gl, SPLAT_VERTEX, SPLAT_FRAGMENT, ["splat"]);
  const forMesh = program(gl, MESH_VERTEX, MESH_FRAGMENT, ["position", "uv", "colour"]);

  function look(used, camera) {
    gl.useProgram(used.program);
    gl.uniformMatrix4fv(used.at("view"), false, camera.view);
    gl.uniform2f(used.at("size"), camera.width, camera.height);
    gl.uniform1f(used.at("focal"), camera.focal);
  }

  function splats(data) {
    const { shapes, colours, count } = data, k = colours.data.length / count / 3;
    const shapeTable = tableTexture(gl, shapes.data, 4, gl.RGBA16UI, gl.RGBA_INTEGER, gl.UNSIGNED_SHORT);
    const colourTable = tableTexture(gl, colours.data, 3, gl.RGB8UI, gl.RGB_INTEGER, gl.UNSIGNED_BYTE);
    const order = new Uint32Array(count), array = gl.createVertexArray(), buffer = gl.createBuffer();
    gl.bindVertexArray(array);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, order.byteLength, gl.DYNAMIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribIPointer(0, 1, gl.UNSIGNED_INT, 0, 0);
    gl.vertexAttribDivisor(0, 1);
    let sorted = "";
    return (camera) => {
      look(forSplats, camera);
      gl.bindVertexArray(array);
      if (sorted !== String(camera.along)) {
        sorted = String(camera.along);
        backToFront(shapes.data, shapes.step, camera.along, order);
        gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
        gl.bufferSubData(gl.ARRAY_BUFFER, 0, order);
      }
      [shapeTable, colourTable].forEach((texture, unit) => {
        gl.activeTexture(gl.TEXTURE0 + unit);
        gl.bindTexture(gl.TEXTURE_2D, texture);
      });
      gl.uniform1i(forSplats.at("shapes"), 0);
      gl.uniform1i(forSplats.at("colours"), 1);
      gl.uniform4fv(forSplats.at("shapeLow"), shapes.low);
      gl.uniform4fv(forSplats.at("shapeStep"), shapes.step);
      gl.uniform3fv(forSplats.at("colourLow"), colours.low);
      gl.uniform3fv(forSplats.at("colourStep"), colours.step);
      gl.uniform1i(forSplats.at("coefficients"), k);
      gl.uniform3fv(forSplats.at("eye"), camera.eye);
      gl.disable(gl.DEPTH_TEST);
      gl.enable(gl.BLEND);
      gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
      gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, count);
    };
  }

  function mesh(data) {
    const array = gl.createVertexArray(), { positions, uv, colours, faces, image } = data;
    const span = (table) => table.step.map((step) => step * 65535);
    gl.bindVertexArray(array);
    [[positions, 3, gl.UNSIGNED_SHORT], [uv, 2, gl.UNSIGNED_SHORT], [colours, 3, gl.UNSIGNED_BYTE]].forEach(([table, n, type], i) => {
      if (!table) return;
      gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
      gl.bufferData(gl.ARRAY_BUFFER, table.data, gl.STATIC_DRAW);
      gl.enableVertexAttribArray(i);
      gl.vertexAttribPointer(i, n, type, true, 0, 0);
    });
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, faces, gl.STATIC_DRAW);
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    if (image) {
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, image);
      gl.generateMipmap(gl.TEXTURE_2D);
      const sharper = gl.getExtension("EXT_texture_filter_anisotropic");
      if (sharper) gl.texParameteri(gl.TEXTURE_2D, sharper.TEXTURE_MAX_ANISOTROPY_EXT, 4);
    }
    return (camera, clay = false) => {
      look(forMesh, camera);
      gl.bindVertexArray(array);
      gl.activeTexture(gl.TEXTURE0);
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.uniform1i(forMesh.at("image"), 0);
      gl.uniform3fv(forMesh.at("low"), positions.low);
      gl.uniform3fv(forMesh.at("span"), span(positions));
      gl.uniform2fv(forMesh.at("uvLow"), uv ? uv.low : [0, 0]);
      gl.uniform2fv(forMesh.at("uvSpan"), uv ? span(uv) : [0, 0]);
      gl.uniform1i(forMesh.at("textured"), image ? 1 : 0);
      gl.uniform1i(forMesh.at("clay"), clay ? 1 : 0);
      gl.enable(gl.DEPTH_TEST);
      gl.disable(gl.BLEND);
      gl.drawElements(gl.TRIANGLES, faces.length, gl.UNSIGNED_INT, 0);
    };
  }

  function clear() {
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  }

  return { splats, mesh, clear };
}
