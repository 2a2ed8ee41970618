package com.example.retinaface

/** Facts of faces.tflite, from its metadata, by tools/android_model.py. Not to be edited. */
object ModelInfo {
    const val FILE = "faces.tflite"
    const val SIGNATURE = "serving_default"
    const val IMAGES = "images"
    const val BOXES = "boxes"
    const val SCORES = "scores"
    const val LANDMARK_POINTS = "landmarks"
    const val COUNT = "count"
    const val WIDTH = 320
    const val HEIGHT = 320
    const val MAX_DETECTIONS = 750
    const val FILL = 0xFF7B7568.toInt()
    const val WEIGHTS_SHA256 = "6c14e7cbaad2ca42dcdceee027aeeb5ac49aa401d2de85ff14b8d5a2819e015a"
    val LANDMARKS = listOf("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
}
