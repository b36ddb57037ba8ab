"""A campaign of faults: processes killed, disks full, inputs broken, and hours of training."""
