plugins {
    id("com.android.application")
}

android {
    namespace = "com.example.retinaface"
    compileSdk = 36

    defaultConfig {
        applicationId = "com.example.retinaface"
        minSdk = 24
        targetSdk = 36
        versionCode = 1
        versionName = "1.0"
    }

    androidResources {
        noCompress += listOf("tflite") // so that the model is mapped, not read
    }
}

dependencies {
    implementation("androidx.activity:activity:1.12.1")
    implementation("androidx.camera:camera-camera2:1.6.1")
    implementation("androidx.camera:camera-lifecycle:1.6.1")
    implementation("androidx.core:core-ktx:1.17.0")
    implementation("com.google.ai.edge.litert:litert:2.1.5")
    // CameraX answers with a ListenableFuture. Where a library brings Guava along, the class is found only in Guava itself.
    implementation("com.google.guava:guava:33.4.8-android")
}
