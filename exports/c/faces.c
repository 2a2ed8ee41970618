/* Faces from a .tflite file with LiteRT's C interface: pixels in, a line for each face out.
 *
 *   cc faces.c -o faces -l:libLiteRt.so -L DIR -Wl,-rpath,DIR      DIR: see docs/c_api.md
 *   ./faces faces.tflite ../golden/image.ppm
 *
 * LiteRT's headers (litert/c/) are not in its Python package; what is used of them is declared here, as it is in
 * LiteRT 2.3. With the headers at hand, include those and delete this part.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct LiteRtEnvironmentT *LiteRtEnvironment;
typedef struct LiteRtModelT *LiteRtModel;
typedef struct LiteRtSignatureT *LiteRtSignature;
typedef struct LiteRtTensorT *LiteRtTensor;
typedef struct LiteRtOptionsT *LiteRtOptions;
typedef struct LiteRtCompiledModelT *LiteRtCompiledModel;
typedef struct LiteRtTensorBufferT *LiteRtTensorBuffer;
typedef struct LiteRtTensorBufferRequirementsT *LiteRtTensorBufferRequirements;
/* The real one is smaller; it is only handed from one call to the next. */
typedef struct { max_align_t space[16]; } LiteRtRankedTensorType;
enum { OK = 0, CPU = 1, FOR_READING = 0, FOR_WRITING = 1 };

int LiteRtCreateEnvironment(int count, const void *options, LiteRtEnvironment *);
int LiteRtCreateModelFromFile(LiteRtEnvironment, const char *path, LiteRtModel *);
int LiteRtCreateOptions(LiteRtOptions *);
int LiteRtSetOptionsHardwareAccelerators(LiteRtOptions, int);
int LiteRtCreateCompiledModel(LiteRtEnvironment, LiteRtModel, LiteRtOptions, LiteRtCompiledModel *);
int LiteRtGetModelSignature(LiteRtModel, size_t signature, LiteRtSignature *);
int LiteRtGetSignatureInputTensorByIndex(LiteRtSignature, size_t, LiteRtTensor *);
int LiteRtGetSignatureOutputTensorByIndex(LiteRtSignature, size_t, LiteRtTensor *);
int LiteRtGetSignatureOutputName(LiteRtSignature, size_t, const char **);
int LiteRtGetRankedTensorType(LiteRtTensor, LiteRtRankedTensorType *);
int LiteRtGetCompiledModelInputBufferRequirements(LiteRtCompiledModel, size_t signature, size_t,
                                                  LiteRtTensorBufferRequirements *);
int LiteRtGetCompiledModelOutputBufferRequirements(LiteRtCompiledModel, size_t signature, size_t,
                                                   LiteRtTensorBufferRequirements *);
int LiteRtCreateManagedTensorBufferFromRequirements(LiteRtEnvironment, const LiteRtRankedTensorType *,
                                                    LiteRtTensorBufferRequirements, LiteRtTensorBuffer *);
int LiteRtLockTensorBuffer(LiteRtTensorBuffer, void **address, int mode);
int LiteRtUnlockTensorBuffer(LiteRtTensorBuffer);
int LiteRtGetTensorBufferPackedSize(LiteRtTensorBuffer, size_t *);
int LiteRtRunCompiledModel(LiteRtCompiledModel, size_t signature, size_t, LiteRtTensorBuffer *inputs, size_t,
                           LiteRtTensorBuffer *outputs);
void LiteRtDestroyTensorBuffer(LiteRtTensorBuffer);
void LiteRtDestroyCompiledModel(LiteRtCompiledModel);
void LiteRtDestroyOptions(LiteRtOptions);
void LiteRtDestroyModel(LiteRtModel);
void LiteRtDestroyEnvironment(LiteRtEnvironment);

#define CHECK(call) do { int status = (call); if (status != OK) { \
    fprintf(stderr, "faces: status %d from %s\n", status, #call); exit(1); } } while (0)
enum { SIGNATURE = 0, OUTPUTS = 4 }; /* serving_default; boxes, scores, landmarks, count */

static void read_pixels(const char *path, unsigned char *pixels, size_t size) {
  FILE *file = fopen(path, "rb");
  int width, height;
  if (!file || fscanf(file, "P6 %d %d 255", &width, &height) != 2 || fgetc(file) == EOF ||
      (size_t)width * height * 3 != size || fread(pixels, 1, size, file) != size) {
    fprintf(stderr, "faces: %s: expected a binary PPM of %zu bytes of pixels, the model's size\n", path, size);
    exit(1);
  }
  fclose(file);
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: faces MODEL.tflite IMAGE.ppm\n");
    return 2;
  }
  LiteRtEnvironment environment;
  LiteRtModel model;
  LiteRtOptions options;
  LiteRtCompiledModel compiled;
  LiteRtSignature signature;
  CHECK(LiteRtCreateEnvironment(0, NULL, &environment));
  CHECK(LiteRtCreateModelFromFile(environment, argv[1], &model));
  CHECK(LiteRtCreateOptions(&options));
  CHECK(LiteRtSetOptionsHardwareAccelerators(options, CPU));
  CHECK(LiteRtCreateCompiledModel(environment, model, options, &compiled));
  CHECK(LiteRtGetModelSignature(model, SIGNATURE, &signature));

  LiteRtTensor tensor;
  LiteRtRankedTensorType type;
  LiteRtTensorBufferRequirements requirements;
  LiteRtTensorBuffer image, outputs[OUTPUTS];
  CHECK(LiteRtGetSignatureInputTensorByIndex(signature, 0, &tensor));
  CHECK(LiteRtGetRankedTensorType(tensor, &type));
  CHECK(LiteRtGetCompiledModelInputBufferRequirements(compiled, SIGNATURE, 0, &requirements));
  CHECK(LiteRtCreateManagedTensorBufferFromRequirements(environment, &type, requirements, &image));
  for (int i = 0; i < OUTPUTS; i++) {
    CHECK(LiteRtGetSignatureOutputTensorByIndex(signature, i, &tensor));
    CHECK(LiteRtGetRankedTensorType(tensor, &type));
    CHECK(LiteRtGetCompiledModelOutputBufferRequirements(compiled, SIGNATURE, i, &requirements));
    CHECK(LiteRtCreateManagedTensorBufferFromRequirements(environment, &type, requirements, &outputs[i]));
  }

  void *address;
  size_t size;
  CHECK(LiteRtGetTensorBufferPackedSize(image, &size));
  CHECK(LiteRtLockTensorBuffer(image, &address, FOR_WRITING));
  read_pixels(argv[2], address, size);
  CHECK(LiteRtUnlockTensorBuffer(image));
  CHECK(LiteRtRunCompiledModel(compiled, SIGNATURE, 1, &image, OUTPUTS, outputs));

  const float *boxes = NULL, *scores = NULL, *landmarks = NULL;
  const int32_t *count = NULL;
  for (int i = 0; i < OUTPUTS; i++) { /* by name: the order is the converter's affair */
    const char *name;
    CHECK(LiteRtGetSignatureOutputName(signature, i, &name));
    CHECK(LiteRtLockTensorBuffer(outputs[i], &address, FOR_READING));
    if (!strcmp(name, "boxes")) boxes = address;
    if (!strcmp(name, "scores")) scores = address;
    if (!strcmp(name, "landmarks")) landmarks = address;
    if (!strcmp(name, "count")) count = address;
  }
  if (!boxes || !scores || !landmarks || !count) {
    fprintf(stderr, "faces: %s: not made by retinaface-tf export tflite\n", argv[1]);
    return 1;
  }
  for (int face = 0; face < count[0]; face++) { /* score, box, then x and y of the five landmarks */
    printf("%.5f", scores[face]);
    for (int i = 0; i < 4; i++) printf(" %.3f", boxes[4 * face + i]);
    for (int i = 0; i < 10; i++) printf(" %.3f", landmarks[10 * face + i]);
    printf("\n");
  }

  for (int i = 0; i < OUTPUTS; i++) {
    CHECK(LiteRtUnlockTensorBuffer(outputs[i]));
    LiteRtDestroyTensorBuffer(outputs[i]);
  }
  LiteRtDestroyTensorBuffer(image);
  LiteRtDestroyCompiledModel(compiled);
  LiteRtDestroyOptions(options);
  LiteRtDestroyModel(model);
  LiteRtDestroyEnvironment(environment);
  return 0;
}
