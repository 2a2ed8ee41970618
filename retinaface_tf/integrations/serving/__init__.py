"""Clients for TensorFlow Serving with an exported SavedModel.

`grpc_client.GrpcClient` needs the extra `serving`; `rest_client.RestClient` needs neither it nor TensorFlow.
"""
