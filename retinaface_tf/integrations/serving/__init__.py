"""Clients of a TensorFlow Serving that runs an exported SavedModel: photos in, `Detections` out.

`grpc_client.GrpcClient` needs the extra `serving`; `rest_client.RestClient` needs neither it nor TensorFlow.
"""
