package com.example.retinaface

import android.content.Context
import android.graphics.Bitmap
import android.graphics.PointF
import android.graphics.RectF
import java.io.FileInputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel
import org.tensorflow.lite.Interpreter

/** A face in pixels of the image. Landmarks are in the order of [ModelInfo.LANDMARKS] and may lie outside of the image. */
class Face(val score: Float, val box: RectF, val landmarks: List<PointF>)

/**
 * Finds the faces of an image with the model in the assets, on the CPU by XNNPACK.
 *
 * All from the pixels to the faces is in the model. One call at a time: the buffers are used again.
 */
class FaceDetector(context: Context, threads: Int = 2) : AutoCloseable {
    private val interpreter = Interpreter(model(context), Interpreter.Options().setNumThreads(threads))

    private val pixels = IntArray(ModelInfo.WIDTH * ModelInfo.HEIGHT)
    private val images = ByteBuffer.allocateDirect(3 * pixels.size).order(ByteOrder.nativeOrder())
    private val boxes = Array(1) { Array(ModelInfo.MAX_DETECTIONS) { FloatArray(4) } }
    private val scores = Array(1) { FloatArray(ModelInfo.MAX_DETECTIONS) }
    private val landmarks =
        Array(1) { Array(ModelInfo.MAX_DETECTIONS) { Array(ModelInfo.LANDMARKS.size) { FloatArray(2) } } }
    private val count = IntArray(1)

    private val inputs = mapOf<String, Any>(ModelInfo.IMAGES to images)
    private val outputs = mapOf<String, Any>(
        ModelInfo.BOXES to boxes,
        ModelInfo.SCORES to scores,
        ModelInfo.LANDMARK_POINTS to landmarks,
        ModelInfo.COUNT to count,
    )

    init {
        val shape = interpreter.getInputTensorFromSignature(ModelInfo.IMAGES, ModelInfo.SIGNATURE).shape()
        check(shape.contentEquals(intArrayOf(1, ModelInfo.HEIGHT, ModelInfo.WIDTH, 3))) {
            "${ModelInfo.FILE} takes ${shape.joinToString(" x ")}, not what ModelInfo says: see README.md"
        }
    }

    /** The faces of an image of exactly [ModelInfo.WIDTH] x [ModelInfo.HEIGHT] pixels, best first. */
    fun detect(image: Bitmap): List<Face> {
        require(image.width == ModelInfo.WIDTH && image.height == ModelInfo.HEIGHT) {
            "expected ${ModelInfo.WIDTH} x ${ModelInfo.HEIGHT} pixels. Received: ${image.width} x ${image.height}"
        }
        image.getPixels(pixels, 0, image.width, 0, 0, image.width, image.height)
        images.rewind()
        for (pixel in pixels) { // ARGB to R, G, B
            images.put((pixel shr 16).toByte()).put((pixel shr 8).toByte()).put(pixel.toByte())
        }
        images.rewind()
        interpreter.runSignature(inputs, outputs, ModelInfo.SIGNATURE)
        return List(count[0]) { i ->
            val (left, top, right, bottom) = boxes[0][i]
            Face(scores[0][i], RectF(left, top, right, bottom), landmarks[0][i].map { (x, y) -> PointF(x, y) })
        }
    }

    override fun close() = interpreter.close()

    private fun model(context: Context): ByteBuffer =
        context.assets.openFd(ModelInfo.FILE).use { file ->
            FileInputStream(file.fileDescriptor).use { stream ->
                stream.channel.map(FileChannel.MapMode.READ_ONLY, file.startOffset, file.declaredLength)
            }
        }
}
