"""Import of the public Taobao display-ad log (Alibaba Tianchi, Ali_Display_Ad_Click). LEADRE §5.1's public stand-in."""
