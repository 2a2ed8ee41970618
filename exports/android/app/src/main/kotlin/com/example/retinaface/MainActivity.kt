package com.example.retinaface

import android.Manifest
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Matrix
import android.graphics.Paint
import android.graphics.RectF
import android.os.Bundle
import android.util.Size
import android.widget.Toast
import androidx.activity.ComponentActivity
import androidx.activity.result.contract.ActivityResultContracts
import androidx.camera.core.CameraSelector
import androidx.camera.core.ImageAnalysis
import androidx.camera.core.ImageProxy
import androidx.camera.core.resolutionselector.ResolutionSelector
import androidx.camera.core.resolutionselector.ResolutionStrategy
import androidx.camera.lifecycle.ProcessCameraProvider
import androidx.core.content.ContextCompat
import java.util.concurrent.Executors
import kotlin.math.min

/** Looks for faces in what the camera sees and shows each image with its own faces. */
class MainActivity : ComponentActivity() {
    private val worker = Executors.newSingleThreadExecutor()
    private lateinit var detector: FaceDetector
    private lateinit var view: FaceView

    private val permission = registerForActivityResult(ActivityResultContracts.RequestPermission()) { granted ->
        if (granted) startCamera() else finish()
    }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        detector = FaceDetector(this)
        view = FaceView(this)
        setContentView(view)
        permission.launch(Manifest.permission.CAMERA) // answers at once where it was given before
    }

    override fun onDestroy() {
        super.onDestroy()
        worker.execute { detector.close() } // after the image that is being looked at
        worker.shutdown()
    }

    private fun startCamera() {
        val future = ProcessCameraProvider.getInstance(this)
        future.addListener({
            // The smallest images that have the model's size: fewer pixels to shrink.
            val size = Size(ModelInfo.WIDTH, ModelInfo.HEIGHT)
            val strategy = ResolutionStrategy(size, ResolutionStrategy.FALLBACK_RULE_CLOSEST_HIGHER_THEN_LOWER)
            val analysis = ImageAnalysis.Builder()
                .setResolutionSelector(ResolutionSelector.Builder().setResolutionStrategy(strategy).build())
                .setOutputImageFormat(ImageAnalysis.OUTPUT_IMAGE_FORMAT_RGBA_8888)
                .setBackpressureStrategy(ImageAnalysis.STRATEGY_KEEP_ONLY_LATEST)
                .build()
            analysis.setAnalyzer(worker) { frame -> look(frame) }
            val provider = future.get()
            val cameras = listOf(CameraSelector.DEFAULT_BACK_CAMERA, CameraSelector.DEFAULT_FRONT_CAMERA)
            val camera = cameras.firstOrNull { provider.hasCamera(it) } // many tablets and laptops have no back camera
            if (camera == null) {
                Toast.makeText(this, "This device has no camera", Toast.LENGTH_LONG).show()
                finish()
            } else {
                provider.bindToLifecycle(this, camera, analysis)
            }
        }, ContextCompat.getMainExecutor(this))
    }

    private fun look(frame: ImageProxy) {
        val image = frame.use { atModelSize(it.toBitmap(), it.imageInfo.rotationDegrees) }
        val faces = detector.detect(image)
        view.post { view.show(image, faces) }
    }

    /** The image upright, shrunk if it is too large, in the upper left corner of one of the model's size. */
    private fun atModelSize(image: Bitmap, degrees: Int): Bitmap {
        val place = Matrix().apply { postRotate(degrees.toFloat()) }
        val bounds = RectF(0f, 0f, image.width.toFloat(), image.height.toFloat())
        place.mapRect(bounds)
        place.postTranslate(-bounds.left, -bounds.top)
        val scale = min(1f, min(ModelInfo.WIDTH / bounds.width(), ModelInfo.HEIGHT / bounds.height()))
        place.postScale(scale, scale)
        val result = Bitmap.createBitmap(ModelInfo.WIDTH, ModelInfo.HEIGHT, Bitmap.Config.ARGB_8888)
        val canvas = Canvas(result)
        canvas.drawColor(ModelInfo.FILL)
        canvas.drawBitmap(image, place, Paint(Paint.FILTER_BITMAP_FLAG))
        return result
    }
}
