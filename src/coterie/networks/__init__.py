"""Networks: layers, one network per agent or shared ones, the QMIX mixer."""
