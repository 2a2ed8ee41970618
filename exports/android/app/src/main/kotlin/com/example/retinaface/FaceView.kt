package com.example.retinaface

import android.content.Context
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Paint
import android.view.View
import kotlin.math.max
import kotlin.math.min
import kotlin.math.sqrt

/** Shows the image that was looked at, as large as it fits, with its faces drawn on it. */
class FaceView(context: Context) : View(context) {
    private val line = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        style = Paint.Style.STROKE
        color = Color.GREEN
    }
    private val dot = Paint(Paint.ANTI_ALIAS_FLAG).apply { color = Color.YELLOW }
    private val smooth = Paint(Paint.FILTER_BITMAP_FLAG)
    private var image: Bitmap? = null
    private var faces = emptyList<Face>()

    fun show(image: Bitmap, faces: List<Face>) {
        this.image = image
        this.faces = faces
        invalidate()
    }

    override fun onDraw(canvas: Canvas) {
        val image = image ?: return
        val scale = min(width / image.width.toFloat(), height / image.height.toFloat())
        canvas.translate((width - scale * image.width) / 2, (height - scale * image.height) / 2)
        canvas.scale(scale, scale)
        canvas.drawBitmap(image, 0f, 0f, smooth)
        for (face in faces) {
            val size = sqrt(face.box.width() * face.box.height()) // lines and dots in proportion to the face
            line.strokeWidth = max(1f, size / 40)
            canvas.drawRect(face.box, line)
            for (point in face.landmarks) canvas.drawCircle(point.x, point.y, max(1f, size / 30), dot)
        }
    }
}
