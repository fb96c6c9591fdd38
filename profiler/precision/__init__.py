"""A network's ONNX file in the precision that is deployed: fp16, or int8 with what is left in fp32 or fp16.

TensorRT and ONNX Runtime take the precision from the file's own types. The conversions are ONNX Runtime's; which values
do not fit is found here, on batches, before anything is converted.
"""
