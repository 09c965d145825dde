"""What agreement, checksums, copies and restores cost with many ranks and parameters: a model, and its check.

    python -m benchmarks.trainer_scale [--measure 2 4 8] [--ranks 8 64 512 4096] [--billions 7 70 405] [--help]

`traffic` counts messages and bytes of each collective, `operations` those of what Lossguard does with them. `costs`
adds the bytes of the state and the rates of hardware (`rates`). `measured` runs the same operations in gloo processes
on this machine and reads how many bytes the kernel has sent for them, which no load on the machine can change.
"""
