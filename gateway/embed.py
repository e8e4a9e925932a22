#!/usr/bin/python3
"""Write a file as the bytes of a C function: embed.py IN OUT."""
import sys

with open(sys.argv[1], "rb") as f:
    data = f.read()
with open(sys.argv[2], "w", encoding="ascii") as f:
    f.write('#include "gateway/openapi.h"\n\nstatic const unsigned char data[] = {\n')
    for i in range(0, len(data), 20):
        f.write(",".join(map(str, data[i:i + 20])) + ",\n")
    f.write("};\n\nstruct bytes openapi_document(void)\n{\n"
            "    return bytes_of(data, sizeof data);\n}\n")
